"""Certificates: which are trusted, and which is shown."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=256)
def client_context(
    ca_file: Path | None = None,
    *,
    verify: bool = True,
    certificate: Path | None = None,
    key: Path | None = None,
) -> ssl.SSLContext:
    """Context of a client, TLS 1.2 at least (RFC 8996). Raises OSError for a file that cannot be used."""
    # Reading the machine's authorities takes 70 ms, in which nothing else is sent: hence the cache.
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        # An empty password, or OpenSSL would ask for one at the terminal, and wait.
        context.load_cert_chain(certificate, key, password="")
    return context
