"""Processes inbound mail and ESP events: parses, classifies and matches them, and applies the effects."""
