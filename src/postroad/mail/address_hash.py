"""Addresses that may not be kept in clear: kept as a keyed hash, which tells whether it is the one that comes along.

HMAC-SHA-256 (RFC 2104): without the key nobody can try addresses until one fits, as they can with a bare hash.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

from pydantic import SecretStr

MARK = "#"
"""What a hash begins with where an address is expected. No address does that is not in quotes."""

_HASHED = re.compile(r"#[0-9a-f]{64}")


class AddressHashes:
    """Hashes normalised addresses with one secret key. What was kept with another key holds no more."""

    def __init__(self, key: SecretStr) -> None:
        # A key of its own: who gets hold of one of them learns nothing of the tokens' key.
        self._key = hmac.digest(key.get_secret_value().encode(), b"suppression", sha256)

    def __call__(self, address: str) -> str:
        """Return ``#`` and 64 hexadecimal digits."""
        return MARK + hmac.digest(self._key, address.encode(), "sha256").hex()


def is_hash(text: str) -> bool:
    """Whether a text has the form of a hashed address."""
    return _HASHED.fullmatch(text) is not None
