"""What mail services tell of the mail that they passed on: each event becomes a report, as a mail would."""
