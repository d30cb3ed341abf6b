r"""Patterns of LIKE in the form of the tree: ``%``, ``_``, and ``\`` before one that is meant literally."""

from __future__ import annotations

from collections.abc import Iterator


def pieces(pattern: str) -> Iterator[tuple[bool, str]]:
    r"""Yield the characters of a pattern, and whether each is a wildcard."""
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            yield False, next(characters, "\\")
        else:
            yield character in "%_", character


def to_glob(pattern: str) -> str:
    """Return a pattern as SQLite's GLOB, which is case-sensitive."""
    wildcards = {"%": "*", "_": "?"}
    return "".join(
        wildcards[character] if is_wildcard else f"[{character}]" if character in "*?[" else character
        for is_wildcard, character in pieces(pattern)
    )


def matches(text: str, pattern: str) -> bool:
    """Return whether a pattern matches a whole text. The time is bounded by the product of their lengths."""
    parts = list(pieces(pattern))
    place = at = 0
    retry: tuple[int, int] | None = None
    while at < len(text):
        is_wildcard, character = parts[place] if place < len(parts) else (False, "")
        if is_wildcard and character == "%":
            place, retry = place + 1, (place + 1, at)
        elif (is_wildcard and character == "_") or character == text[at]:
            place, at = place + 1, at + 1
        elif retry is not None:  # The last % takes one more character.
            retry = retry[0], retry[1] + 1
            place, at = retry
        else:
            return False
    return all(is_wildcard and character == "%" for is_wildcard, character in parts[place:])
