"""Parses the webhook events of email service providers (ESPs)."""
