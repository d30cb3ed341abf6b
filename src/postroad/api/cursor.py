"""Opaque cursors: where the next page of a list begins, signed, so that a client cannot make one.

A cursor belongs to one list with one filter. It names the last row of a page, and never an offset: rows that are
inserted meanwhile neither repeat nor skip others.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

import msgspec
from pydantic import SecretStr

from postroad.api.problems import FieldProblem, ProblemError, ProblemKind

MAX_CURSOR_CHARACTERS: Final = 1_000
_SIGNATURE_BYTES: Final = 16


class CursorPlace(msgspec.Struct, frozen=True, array_like=True):
    """``kind``: the list with its filter. ``key``: of the last row."""

    kind: str
    key: list[int | str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CursorPlace).decode


class Cursors:
    """Signs and verifies cursors with a ring of secret keys."""

    def __init__(self, key: SecretStr, *older: SecretStr) -> None:
        """Prepare the keys. ``key`` signs; ``key`` and the ``older`` keys verify."""
        secrets = [blake2b(secret.get_secret_value().encode()).digest() for secret in (key, *older)]
        self._ring = [blake2b(b"cursor", key=secret).digest() for secret in secrets]

    def sign(self, kind: str, key: list[int | str]) -> str:
        """Return the cursor of a place in a list."""
        payload = _encode(CursorPlace(kind, key))
        return urlsafe_b64encode(self._signature(self._ring[0], payload) + payload).decode().rstrip("=")

    def read(self, kind: str, text: str | None) -> list[int | str] | None:
        """Return the place that a cursor names.

        Args:
            kind: The list with its filter.
            text: The cursor. None: the list begins.

        Returns:
            The key of the last row. None: the list begins.

        Raises:
            ProblemError: The text is not a cursor of this list.
        """
        if text is None:
            return None
        place = self._verified(text)
        if place is None or place.kind != kind:
            fields = [FieldProblem(field="cursor", message="it is not a cursor of this list with these parameters")]
            raise ProblemError(
                ProblemKind.INVALID,
                "cursor: it is not a cursor of this list with these parameters",
                remedy="Send a `next` of this list unchanged, with the same parameters, or none for the first page.",
                errors=fields,
            )
        return place.key

    def _verified(self, text: str) -> CursorPlace | None:
        """Return the place of a cursor that one of the keys signed."""
        try:
            octets = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (Base64Error, ValueError):
            return None
        signature, payload = octets[:_SIGNATURE_BYTES], octets[_SIGNATURE_BYTES:]
        matches = [compare_digest(self._signature(key, payload), signature) for key in self._ring]
        return _decode(payload) if any(matches) else None

    @staticmethod
    def _signature(key: bytes, payload: bytes) -> bytes:
        return blake2b(payload, key=key, digest_size=_SIGNATURE_BYTES).digest()
