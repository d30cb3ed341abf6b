"""What a receiver says of a message's authentication, in its Authentication-Results (RFC 8601).

Anybody can write such a field. Only those of the one host that the operator names count (§5), and that host is to
remove what others wrote in its name.
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
    """What one method came to: ``spf``, ``pass``, and properties as ``smtp.mailfrom``; names in lower case."""

    method: str
    result: str
    properties: Mapping[str, str]


def results_of(raw: bytes, authserv_id: str) -> list[CanaryResult]:
    """Return what a host says of a message. Fields of others, and what cannot be read, are passed over."""
    headers = BytesHeaderParser().parsebytes(raw)
    found: list[CanaryResult] = []
    for value in (headers.get_all(FIELD) or [])[:MAX_FIELDS]:
        found += read_field(str(value)[:MAX_FIELD_CHARACTERS], authserv_id)
    return found


def read_field(value: str, authserv_id: str) -> list[CanaryResult]:
    """Read one field (§2.2). Empty where it is of another host, or says ``none``."""
    host, *context = _split(_without_comments(value))
    words = host.split()
    # Behind the host there may be a version, of which only the first is known.
    if not words or _unquoted(words[0]).lower() != authserv_id.lower() or words[1:] not in ([], ["1"]):
        return []
    return [result for part in context if (result := _read_result(part)) is not None]


def _read_result(text: str) -> CanaryResult | None:
    text = text.strip()
    method = _METHOD.match(text)
    if method is None:
        return None
    properties = {
        f"{kind}.{name}".lower(): _unquoted(value) for kind, name, value in _PROPERTY.findall(text[method.end() :])
    }
    return CanaryResult(method[1].lower(), method[2].lower(), properties)


def _without_comments(text: str) -> str:
    """Leave out what is in parentheses, which may be nested (RFC 5322 §3.2.2), and not what is quoted."""
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
    """AppContext between semicolons that are not quoted."""
    context = [""]
    for kind, piece in _pieces(text):
        if kind == ";":
            context.append("")
        else:
            context[-1] += piece
    return context


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield quoted strings, parentheses, semicolons and all else, each with its kind."""
    for match in re.finditer(r'("(?:[^"\\]|\\.)*")|(\\.)|([();])|([^"\\();]+|["\\])', text, re.DOTALL):
        quoted, pair, special, other = match.groups()
        yield (special, special) if special else ("text", quoted or pair or other)


def _unquoted(text: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", text[1:-1]) if len(text) > 1 and text[0] == text[-1] == '"' else text
