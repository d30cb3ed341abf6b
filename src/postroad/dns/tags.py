"""Lists of tags, ``name=value; name=value``, as DKIM, DMARC, TLS-RPT, MTA-STS and BIMI write them in TXT records."""

from __future__ import annotations

import re
from collections.abc import Sequence

from postroad.dns.lookup import Lookup
from postroad.dns.record import Txt

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class RecordError(Exception):
    """A record cannot be read. Says why."""


def texts(lookup: Lookup) -> list[str]:
    """Texts of the TXT records. Octets outside ASCII become U+FFFD."""
    return [r.octets.decode("ascii", "replace") for r in lookup.records if isinstance(r, Txt)]


def parse_tags(text: str, faults: list[str] | None = None) -> dict[str, str]:
    """Return the tags in their order, names in lower case, without the white space around both.

    ``faults``: gets what is not a tag, which is then passed over. None: such a record is refused.
    Raises RecordError: a tag that occurs twice makes all of a list invalid (RFC 6376 §3.2).
    """
    tags: dict[str, str] = {}
    parts = text.split(";")
    if not parts[-1].strip():
        parts.pop()
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if not equals or not _NAME.fullmatch(name):
            fault = f"{part.strip()[:60]!r} is no tag: write name=value"
            if faults is None:
                raise RecordError(fault)
            faults.append(fault if part.strip() else "two semicolons have no tag between them")
            continue
        if name in tags:
            raise RecordError(f"{name}= is there twice")
        tags[name] = value.strip()
    return tags


def first_tag_is(text: str, name: str, value: str) -> bool:
    """Whether a text is a record of this version: its first tag says so. Others at the name do not count."""
    tag, equals, rest = text.partition("=")
    return bool(equals) and tag.strip().lower() == name and rest.partition(";")[0].strip() == value


def refuse_unknown(tags: dict[str, str], known: Sequence[str]) -> None:
    """Raises RecordError for a tag that the standard does not have."""
    for name in tags:
        if name not in known:
            raise RecordError(f"{name}= is no tag of this record")


def unanswered_reason(lookup: Lookup) -> str:
    """Return which query has no answer, and why, in few words."""
    return f"no answer about {lookup.kind} of {lookup.name}: {lookup.why[:200]}"
