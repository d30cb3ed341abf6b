"""Compiles templates and merges them into messages: addresses, headers, MIME, DKIM, tokens."""
