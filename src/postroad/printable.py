r"""Escapes untrusted text for display: control characters become visible escapes, such as ``\x1b``.

A reply of a mail server, a cell of a CSV file or a DNS record may contain escape sequences that clear a terminal, set
its title or reverse the reading order. All output for users passes its data through `printable`.
"""

from __future__ import annotations

import logging
import re
import unicodedata

# Cc: C0, DEL and C1; Cf: bidirectional overrides, tags and other invisible marks; Cs: lone surrogates, which cannot be
# encoded; Zl and Zp: separators that some terminals and log readers treat as the end of a line.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Zero-width joiners, which Persian, Indic scripts and many emoji need.
_JOINERS = frozenset("\u200c\u200d")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str, *, keep: str = "") -> str:
    r"""Return the text with every control character as an escape, such as ``\r``, ``\x1b`` or ``\u202e``.

    Args:
        text: The text.
        keep: Control characters that are not escaped, such as ``"\n"`` for several lines.

    Returns:
        The escaped text. No character is removed.
    """
    if text.isprintable():
        return text
    return "".join(char if char in keep or not is_hidden(char) else _escape(char) for char in text)


def is_hidden(char: str) -> bool:
    """Return whether a terminal would interpret the character, or show nothing, instead of showing it."""
    return not char.isprintable() and char not in _JOINERS and unicodedata.category(char) in _HIDDEN


def _escape(char: str) -> str:
    code = ord(char)
    if char in _NAMED:
        return _NAMED[char]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: ``1 row``, ``2 rows``, ``1,000 rows``. The default plural is the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


_ACTIVE = re.compile(r"[\\`*\[\]<>|~$!#&]|://|www\.|(?<!\w)_|_(?!\w)|^([-+]|\d+[.)])\s|^[-=]+$")


def escape_markdown(text: str) -> str:
    """Return the text on one line with every punctuation character escaped, so that it has no effect in Markdown."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", printable(" ".join(text.split())))


def escape_active_markdown(text: str) -> str:
    """Return the text on one line, escaped only if Markdown would not show it literally."""
    line = " ".join(text.split())
    return escape_markdown(line) if _ACTIVE.search(line) or not line.isprintable() else line


class PrintableFormatter(logging.Formatter):
    """Formats log records on one line each, even if the message has control characters. Tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the name is logging's)
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        return printable(super().formatException(ei), keep="\n")  # type: ignore[arg-type]
