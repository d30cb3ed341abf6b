"""Webhooks of email service providers (ESPs): verifies each request, stores and enqueues its events, then replies."""
