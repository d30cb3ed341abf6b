"""Where what comes back comes from: taken in over SMTP and LMTP, fetched from Maildirs and IMAP servers."""
