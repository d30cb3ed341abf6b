"""Tokens: what leaves in a message, and comes back to tell which touch it was.

A token holds the number of a touch and a signature (keyed BLAKE2b, RFC 7693 §2.9, of 80 bits) that also covers what the
token is for. Nobody can make one, and one made for a bounce does not unsubscribe. It is lower case letters and digits,
so that it survives servers that change the case of a local part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from hmac import compare_digest

from pydantic import SecretStr

_SIGNATURE_BYTES = 10
_NUMBER = re.compile(r"[0-9a-f]{1,16}")  # int() reads more: 0x1f, 1_f, +1f


class Purpose(StrEnum):
    """What a token is for."""

    BOUNCE = "bounce"
    MESSAGE_ID = "message-id"
    UNSUBSCRIBE = "unsubscribe"
    REPLY = "reply"


def _states(key: SecretStr) -> dict[Purpose, blake2b]:
    # A key for each purpose, of the 64 bytes at most that BLAKE2b takes; a message has three tokens, and to copy a
    # state takes a third of what it takes to make one.
    secret = blake2b(key.get_secret_value().encode()).digest()
    return {
        purpose: blake2b(key=blake2b(purpose.value.encode(), key=secret).digest(), digest_size=_SIGNATURE_BYTES)
        for purpose in Purpose
    }


def _sign(states: Mapping[Purpose, blake2b], purpose: Purpose, touch_id: int) -> str:
    state = states[purpose].copy()
    state.update(touch_id.to_bytes(8))
    return f"{touch_id:x}-{state.hexdigest()}"


class TokenSigner:
    """Makes and reads tokens with a ring of secret keys."""

    def __init__(self, key: SecretStr, *older: SecretStr) -> None:
        """``key`` signs; it and ``older`` keys verify."""
        self._ring = [_states(one) for one in (key, *older)]

    def sign(self, purpose: Purpose, touch_id: int) -> str:
        """Token of a touch: its number in hexadecimal and the signature, joined by a hyphen."""
        return _sign(self._ring[0], purpose, touch_id)

    def read(self, purpose: Purpose, token: str) -> int | None:
        """Return the touch of a token, or None if no key of the ring signed it for this purpose."""
        token = token.strip()
        if not token.isascii():
            return None  # compare_digest takes nothing else.
        token = token.lower()
        number = token.partition("-")[0]
        if not _NUMBER.fullmatch(number):
            return None
        touch_id = int(number, 16)
        signed = [compare_digest(_sign(states, purpose, touch_id), token) for states in self._ring]
        return touch_id if any(signed) else None
