"""Pages of lists: each continues after the key of the last row of the page before, and none counts rows to skip."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from postroad.errors import UsageError

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500

Row = TypeVar("Row")
Key = TypeVar("Key")


class Page(Struct, Generic[Row], frozen=True, kw_only=True):
    """Some rows of a list, in its order. ``next``: where the next page begins; None: this is the last one."""

    rows: Sequence[Row]
    next: str | None = None


def encode_cursor(key: Any) -> str:
    """Return a key as text for a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode_cursor(text: str | None, kind: type[Key], start: Key) -> Key:
    """Return the key that `encode_cursor` encoded.

    Args:
        text: The text. None: the list begins.
        kind: Type of the key, as a tuple of ids.
        start: The key before the first row.

    Returns:
        The key.

    Raises:
        UsageError: The text is not a cursor of this list.
    """
    if text is None:
        return start
    try:
        raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        key = msgspec.json.decode(raw, type=kind)
        _require_storable(key)
        return key
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise UsageError(
            f"the cursor {text[:40]!r} is not one of this list", remedy="Open the list from its first page."
        ) from None


def _require_storable(key: Any) -> None:
    """Raise ValueError for a key that no row can have: a number of more than 64 bits, or a text with NUL."""
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, int) and not -(2**63) <= part < 2**63:
            raise ValueError("the number has more than 64 bits")
        if isinstance(part, str) and "\0" in part:
            raise ValueError("the text has a NUL")


def checked_limit(limit: int) -> int:
    """Return the number of rows of a page, at least 1 and at most `MAX_LIMIT`."""
    return min(max(limit, 1), MAX_LIMIT)


def to_page(rows: Sequence[Row], limit: int, key: Callable[[Row], Any]) -> Page[Row]:
    """Return the page of the first ``limit`` of these rows, of which there is one more if there is a next page."""
    shown = rows[:limit]
    return Page(rows=shown, next=encode_cursor(key(shown[-1])) if len(rows) > limit else None)
