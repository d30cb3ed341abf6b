"""Sources of inbound mail: an SMTP and LMTP listener, Maildirs, and IMAP mailboxes."""
