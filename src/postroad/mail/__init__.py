"""A template becomes a message."""
