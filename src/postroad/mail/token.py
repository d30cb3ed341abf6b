"""Signed tokens in messages, which identify the touch when they are returned in a bounce, reply or unsubscribe request.

A token contains the number of a touch and an 80-bit signature (keyed BLAKE2b, RFC 7693 §2.9) that also covers the
purpose of the token. Tokens cannot be forged, and a token for bounces cannot unsubscribe. A token consists of lower
case letters and digits, so that it survives servers that change the case of a local part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from pydantic import SecretStr

_SIGNATURE_BYTES = 10
_NUMBER = re.compile(r"[0-9a-f]{1,16}")  # int() accepts more: 0x1f, 1_f, +1f


PROOFS: Final = range(2**61, 2**62)
"""Numbers in the tokens of proofs. No touch has one, so that links, bounces and replies of a proof have no effect."""


class Purpose(StrEnum):
    """The purpose of a token."""

    BOUNCE = "bounce"
    MESSAGE_ID = "message-id"
    UNSUBSCRIBE = "unsubscribe"
    REPLY = "reply"


def _states(key: SecretStr) -> dict[Purpose, blake2b]:
    # One key for each purpose, of at most 64 bytes, as BLAKE2b requires. Copying a hash state takes a third of the time
    # of creating one, and a message has three tokens.
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
    """Signs and verifies tokens with a ring of secret keys."""

    def __init__(self, key: SecretStr, *older: SecretStr) -> None:
        """Prepare the keys. ``key`` signs new tokens; ``key`` and the ``older`` keys verify."""
        self._ring = [_states(secret) for secret in (key, *older)]

    def sign(self, purpose: Purpose, touch_id: int) -> str:
        """Return the token of a touch: its number in hexadecimal and the signature, joined by a hyphen."""
        return _sign(self._ring[0], purpose, touch_id)

    def read(self, purpose: Purpose, token: str) -> int | None:
        """Verify a token. Return its touch, or None if no key of the ring signed it for this purpose."""
        token = token.strip()
        if not token.isascii():
            return None  # compare_digest requires ASCII.
        token = token.lower()
        number = token.partition("-")[0]
        if not _NUMBER.fullmatch(number):
            return None
        touch_id = int(number, 16)
        matches = [compare_digest(_sign(states, purpose, touch_id), token) for states in self._ring]
        return touch_id if any(matches) else None
