"""Canaries: messages to a mailbox of the operator's own, to compare what a receiver sees with what DNS promises."""
