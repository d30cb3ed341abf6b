"""Keyed hashes of addresses that must not be stored in clear text, so that they can still be recognised.

HMAC-SHA-256 (RFC 2104): without the key, addresses cannot be found by trying, as they can with a plain hash.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

from pydantic import SecretStr

MARK = "#"
"""Prefix of a hash in the place of an address. An address begins with it only in quotes."""

_HASHED = re.compile(r"#[0-9a-f]{64}")


class AddressHashes:
    """Hashes normalised addresses with a ring of secret keys. A hash by a key outside the ring has no effect."""

    def __init__(self, key: SecretStr, *older: SecretStr) -> None:
        """Derive the keys. ``key`` makes new hashes; the ``older`` keys made hashes that are stored already."""
        # Derived, so that this key reveals nothing about the tokens' key.
        self._keys = [hmac.digest(ring.get_secret_value().encode(), b"suppression", sha256) for ring in (key, *older)]

    def __call__(self, address: str) -> str:
        """Return the hash of an address: ``#`` and 64 hexadecimal digits."""
        return _hash(self._keys[0], address)

    def older(self, address: str) -> list[str]:
        """Return the hashes of an address by the older keys."""
        return [_hash(key, address) for key in self._keys[1:]]


def _hash(key: bytes, address: str) -> str:
    return MARK + hmac.digest(key, address.encode(), "sha256").hex()


def is_hash(text: str) -> bool:
    """Return whether a text has the form of a hashed address."""
    return _HASHED.fullmatch(text) is not None
