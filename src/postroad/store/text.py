"""Makes text from outside storable in the database."""

from __future__ import annotations


def storable_text(text: str, max_chars: int) -> str:
    """Return a text that every database can store: without NUL, which PostgreSQL rejects, and without lone surrogates.

    Each becomes a replacement character. ``max_chars``: a longer text is truncated.
    """
    text = text[:max_chars]
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
