"""Reports that receivers send: who sends in a domain's name (DMARC), and where TLS fails (TLS-RPT)."""
