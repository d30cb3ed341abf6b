"""The public endpoints: what recipients and mailbox providers reach over HTTP."""
