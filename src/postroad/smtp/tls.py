"""TLS contexts of a client: trusted authorities and client certificates."""

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
    """Return a client's TLS context, TLS 1.2 at least (RFC 8996). Raises OSError for a file that cannot be used."""
    # Reading the system's authorities blocks for 70 ms: hence the cache.
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        # An empty password, or OpenSSL would prompt for one on the terminal and block.
        context.load_cert_chain(certificate, key, password="")
    return context
