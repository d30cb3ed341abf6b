"""The way out, where queue, mail, SMTP and store meet."""
