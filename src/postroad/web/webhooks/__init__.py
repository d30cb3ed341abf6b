"""Webhooks of mail services: each call is verified, its events kept and queued, and only then answered."""
