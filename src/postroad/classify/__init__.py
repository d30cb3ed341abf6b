"""Classifies what a mail server says of a message: one judge for SMTP replies and for bounce mails."""
