"""Protects the reputation of senders: DNS checks and holds, cohort pauses, volume, and reports of receivers."""
