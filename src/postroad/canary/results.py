"""Parses a receiver's authentication results in Authentication-Results (RFC 8601).

Any host can add such a field. Only fields of the host that the operator configured count (§5). That host must remove
fields that others added with its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from email.parser import BytesHeaderParser
from typing import NamedTuple

FIELD = "Authentication-Results"
MAX_FIELDS = 50
MAX_FIELD_CHARACTERS = 20_000

_METHOD = re.compile(r"([a-z0-9-]+)(?:\s*/\s*\d+)?\s*=\s*([a-z]+)", re.IGNORECASE)
_PROPERTY = re.compile(r'([a-z0-9-]+)\s*\.\s*([a-z0-9_-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s"]+)', re.IGNORECASE)
_QUOTED_PAIR = re.compile(r"\\(.)")


class CanaryResult(NamedTuple):
    """The result of one method: ``spf``, ``pass``, and properties such as ``smtp.mailfrom``. Names are lower case."""

    method: str
    result: str
    properties: Mapping[str, str]


def parse_results(raw: bytes, authserv_id: str) -> list[CanaryResult]:
    """Return the results of one host in a message. Fields of other hosts and invalid ones are ignored."""
    headers = BytesHeaderParser().parsebytes(raw)
    results: list[CanaryResult] = []
    for value in (headers.get_all(FIELD) or [])[:MAX_FIELDS]:
        results += parse_field(str(value)[:MAX_FIELD_CHARACTERS], authserv_id)
    return results


def parse_field(value: str, authserv_id: str) -> list[CanaryResult]:
    """Parse one field (§2.2). Returns an empty list if it is of another host or contains ``none``."""
    host, *context = _split(_without_comments(value))
    words = host.split()
    # A version may follow the host. Only version 1 exists.
    if not words or _unquoted(words[0]).lower() != authserv_id.lower() or words[1:] not in ([], ["1"]):
        return []
    return [result for part in context if (result := _parse_result(part)) is not None]


def _parse_result(text: str) -> CanaryResult | None:
    text = text.strip()
    method = _METHOD.match(text)
    if method is None:
        return None
    properties = {
        f"{kind}.{name}".lower(): _unquoted(value) for kind, name, value in _PROPERTY.findall(text[method.end() :])
    }
    return CanaryResult(method[1].lower(), method[2].lower(), properties)


def _without_comments(text: str) -> str:
    """Remove comments in parentheses, which may be nested (RFC 5322 §3.2.2), but not in quoted strings."""
    depth = 0
    kept: list[str] = []
    for kind, piece in _pieces(text):
        if kind == "(" and not depth:
            kept.append(" ")
        if kind in "()":
            depth = max(depth + (1 if kind == "(" else -1), 0)
        elif not depth:
            kept.append(piece)
    return "".join(kept)


def _split(text: str) -> list[str]:
    """Split a text at semicolons that are not quoted."""
    parts = [""]
    for kind, piece in _pieces(text):
        if kind == ";":
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield quoted strings, parentheses, semicolons and other text, each with its kind."""
    for match in re.finditer(r'("(?:[^"\\]|\\.)*")|(\\.)|([();])|([^"\\();]+|["\\])', text, re.DOTALL):
        quoted, pair, special, other = match.groups()
        yield (special, special) if special else ("text", quoted or pair or other)


def _unquoted(text: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", text[1:-1]) if len(text) > 1 and text[0] == text[-1] == '"' else text
