"""A whole campaign on embedded parts, by a clock that runs faster, at mailbox providers that the sandbox plays."""
