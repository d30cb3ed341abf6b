"""Canaries: messages to the operator's own mailbox, to compare the receiver's authentication results with DNS."""
