"""The reputation of senders: DNS health and holds, cohorts, volume, and reports of receivers."""
