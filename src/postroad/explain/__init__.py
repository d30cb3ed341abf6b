"""Explains why messages are in their states: what holds them, until when, and what happened to a person's mail."""
