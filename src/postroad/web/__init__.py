"""Serves the public HTTP endpoints: unsubscribe, webhooks of ESPs, and health."""
