"""Tokens: what leaves in a message, and comes back to tell which touch it was.

A token holds the number of a touch and a signature (HMAC-SHA-256, RFC 2104, cut to 80 bits) that also covers what the
token is for. Nobody can make one, and one made for a bounce does not unsubscribe. It is lower case letters and digits,
so that it survives servers that change the case of a local part.
"""

from __future__ import annotations

import hmac
import re
from enum import StrEnum
from hashlib import sha256
from itertools import product

from pydantic import SecretStr

# Of base 32 (RFC 4648 §6), two digits at a time: a quarter of what base64.b32encode takes, and messages have three.
_DIGITS = ["".join(pair) for pair in product("abcdefghijklmnopqrstuvwxyz234567", repeat=2)]
_SHIFTS = range(70, -1, -10)
_NUMBER = re.compile(r"[0-9a-f]{1,16}")  # int() reads more: 0x1f, 1_f, +1f


class Purpose(StrEnum):
    """What a token is for."""

    BOUNCE = "bounce"
    MESSAGE_ID = "message-id"
    UNSUBSCRIBE = "unsubscribe"
    REPLY = "reply"


class TokenSigner:
    """Makes and reads tokens with one secret key."""

    def __init__(self, key: SecretStr) -> None:
        self._keys = {
            purpose: hmac.new(key.get_secret_value().encode(), purpose.value.encode(), sha256).digest()
            for purpose in Purpose
        }

    def _signature(self, purpose: Purpose, touch_id: int) -> str:
        digest = hmac.digest(self._keys[purpose], touch_id.to_bytes(8), "sha256")
        number = int.from_bytes(digest[:10])
        return "".join([_DIGITS[number >> shift & 1023] for shift in _SHIFTS])

    def sign(self, purpose: Purpose, touch_id: int) -> str:
        """Token of a touch: its number in hexadecimal and the signature, joined by a hyphen."""
        return f"{touch_id:x}-{self._signature(purpose, touch_id)}"

    def read(self, purpose: Purpose, token: str) -> int | None:
        """Return the touch of a token, or None if this key did not sign it for this purpose."""
        token = token.strip()
        if not token.isascii():
            return None  # Some letters of elsewhere become ours in lower case.
        token = token.lower()
        number = token.partition("-")[0]
        if not _NUMBER.fullmatch(number):
            return None
        touch_id = int(number, 16)
        return touch_id if hmac.compare_digest(self.sign(purpose, touch_id), token) else None
