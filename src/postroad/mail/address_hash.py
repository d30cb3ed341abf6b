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
    """Hashes normalised addresses with a ring of secret keys. A hash by a key outside the ring has no effect."""

    def __init__(self, key: SecretStr, *older: SecretStr) -> None:
        """``key`` makes the hashes that are kept from now on; ``older`` keys made those that were kept before."""
        # A key of its own: who gets hold of one of them learns nothing of the tokens' key.
        self._keys = [hmac.digest(one.get_secret_value().encode(), b"suppression", sha256) for one in (key, *older)]

    def __call__(self, address: str) -> str:
        """Return ``#`` and 64 hexadecimal digits."""
        return _hash(self._keys[0], address)

    def older(self, address: str) -> list[str]:
        """Return the hashes of an address by the older keys."""
        return [_hash(key, address) for key in self._keys[1:]]


def _hash(key: bytes, address: str) -> str:
    return MARK + hmac.digest(key, address.encode(), "sha256").hex()


def is_hash(text: str) -> bool:
    """Whether a text has the form of a hashed address."""
    return _HASHED.fullmatch(text) is not None
