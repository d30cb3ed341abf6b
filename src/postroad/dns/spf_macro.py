"""Parses and expands SPF macros (RFC 7208 §7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote

_MACRO = re.compile(
    r"%(?:(?P<escape>[%_-])|\{(?P<letter>[slodiphcrtv])(?P<digits>\d*)(?P<reverse>r?)(?P<delimiters>[.+,/_=-]*)\})",
    re.IGNORECASE,
)
_LITERAL = re.compile(r"[\x21-\x24\x26-\x7e]*")
_TOP_LABEL = re.compile(r"\.(?:[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])\.?\Z")
_ESCAPES = {"%": "%", "_": " ", "-": "%20"}
ONLY_IN_EXPLANATIONS = frozenset("crt")
MAX_NAME = 253


class MacroError(Exception):
    """A macro-string is invalid (RFC 7208 §7.1). The message is the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MacroString:
    """A parsed macro-string. ``parts``: its literals and macros. ``letters``: of its macros, in lower case."""

    text: str
    parts: tuple[str | re.Match[str], ...]
    letters: frozenset[str]


def parse_macros(text: str, *, explanation: bool = False) -> MacroString:
    """Parse a macro-string (§7.1). An explanation may contain spaces and the macros c, r and t. Raises MacroError."""
    parts: list[str | re.Match[str]] = []
    position = 0
    while position < len(text):
        percent = text.find("%", position)
        literal = text[position : percent if percent >= 0 else len(text)]
        if not _LITERAL.fullmatch(literal.replace(" ", "") if explanation else literal):
            raise MacroError(f"{literal[:40]!r} has a character that is not allowed")
        parts.append(literal)
        if percent < 0:
            break
        match = _MACRO.match(text, percent)
        if match is None:
            raise MacroError(f"{text[percent : percent + 10]!r} is not a macro")
        if match["digits"] and int(match["digits"]) == 0:
            raise MacroError(f"{match[0]!r} keeps no part of its value")
        parts.append(match)
        position = match.end()
    letters = frozenset(
        part["letter"].lower() for part in parts if isinstance(part, re.Match) and part["letter"] is not None
    )
    if not explanation and letters & ONLY_IN_EXPLANATIONS:
        raise MacroError(f"%{{{min(letters & ONLY_IN_EXPLANATIONS)}}} is allowed in explanations only")
    return MacroString(text=text, parts=tuple(parts), letters=letters)


def parse_domain_spec(text: str) -> MacroString:
    """Parse a domain-spec, which ends in a macro or a top label (§7.1). Raises MacroError."""
    macros = parse_macros(text)
    last = next((part for part in reversed(macros.parts) if part), "")
    if isinstance(last, str) and not _TOP_LABEL.search(text):
        raise MacroError(f"{text!r} does not end in the name of a top-level domain")
    return macros


def expand(macros: MacroString, values: Mapping[str, str]) -> str:
    """Expand macros. ``values``: by lower case letter. A macro in upper case is escaped for URLs (§7.3)."""
    return "".join(part if isinstance(part, str) else _value(part, values) for part in macros.parts)


def _value(match: re.Match[str], values: Mapping[str, str]) -> str:
    if match["escape"] is not None:
        return _ESCAPES[match["escape"]]
    letter = match["letter"]
    pieces = re.split(f"[{re.escape(match['delimiters'] or '.')}]", values[letter.lower()])
    if match["reverse"]:
        pieces.reverse()
    if match["digits"]:
        pieces = pieces[-int(match["digits"]) :]
    value = ".".join(pieces)
    return quote(value, safe="-._~") if letter.isupper() else value


def truncate_name(name: str) -> str:
    """Return a name for a query: without its final dot, and without the first labels if it is too long (§7.3)."""
    name = name.removesuffix(".")
    while len(name) > MAX_NAME and "." in name:
        name = name.partition(".")[2]
    return name


def dotted_address(ip: IPv4Address | IPv6Address) -> str:
    """Return the value of %{i}: dotted decimal for IPv4, dotted nibbles for IPv6."""
    return str(ip) if ip.version == 4 else ".".join(ip.exploded.replace(":", "").upper())
