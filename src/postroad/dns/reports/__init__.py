"""Parses reports that receivers send: about mail with a domain's name (DMARC), and about failures of TLS (TLS-RPT)."""
