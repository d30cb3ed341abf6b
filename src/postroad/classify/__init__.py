"""Classifies the text of a mail server: one classifier for SMTP replies and for bounce mails."""
