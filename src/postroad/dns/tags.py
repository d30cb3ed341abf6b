"""Parses tag lists, ``name=value; name=value``, the syntax of DKIM, DMARC, TLS-RPT and BIMI records."""

from __future__ import annotations

import re
from collections.abc import Sequence

from postroad.dns.lookup import Lookup
from postroad.dns.record import Txt

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class RecordError(Exception):
    """A record is invalid. The message is the reason."""


def texts(lookup: Lookup) -> list[str]:
    """Return the texts of the TXT records. Octets outside ASCII become U+FFFD."""
    return [r.octets.decode("ascii", "replace") for r in lookup.records if isinstance(r, Txt)]


def parse_tags(text: str, faults: list[str] | None = None) -> dict[str, str]:
    """Parse a tag list (RFC 6376 §3.2).

    Args:
        text: The text of a record.
        faults: A list to which parts that are not tags are added, so that they are ignored. None: they are an error.

    Returns:
        The tags in order, with names in lower case, without white space around names and values.

    Raises:
        RecordError: A tag occurs twice, or a part is not a tag.
    """
    tags: dict[str, str] = {}
    parts = text.split(";")
    if not parts[-1].strip():
        parts.pop()
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if not equals or not _NAME.fullmatch(name):
            fault = f"{part.strip()[:60]!r} is not a tag: write name=value"
            if faults is None:
                raise RecordError(fault)
            faults.append(fault if part.strip() else "two semicolons have no tag between them")
            continue
        if name in tags:
            raise RecordError(f"{name}= occurs twice")
        tags[name] = value.strip()
    return tags


def first_tag_is(text: str, name: str, value: str) -> bool:
    """Return whether the first tag of a text has this name and value, which identifies the type of a record."""
    tag, equals, rest = text.partition("=")
    return bool(equals) and tag.strip().lower() == name and rest.partition(";")[0].strip() == value


def reject_unknown_tags(tags: dict[str, str], known: Sequence[str]) -> None:
    """Reject tags that the standard does not define. Raises RecordError."""
    for name in tags:
        if name not in known:
            raise RecordError(f"{name}= is not a tag of this record")


def unanswered_reason(lookup: Lookup) -> str:
    """Return which query got no answer, and why, in a few words."""
    return f"no answer about {lookup.kind} of {lookup.name}: {lookup.why[:200]}"
