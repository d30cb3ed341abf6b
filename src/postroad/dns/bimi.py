"""Parses BIMI records, which name a logo (draft-brand-indicators-for-message-identification)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from postroad.dns.tags import RecordError, first_tag_is, parse_tags, reject_unknown_tags

_KNOWN = ("v", "l", "a", "avp", "lps")
_SELECTOR = re.compile(r"[a-z0-9-]{1,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bimi:
    """A BIMI record. ``logo`` and ``evidence`` are https URIs, and empty if the domain declines to show a logo."""

    logo: str
    evidence: str


def is_bimi(text: str) -> bool:
    return first_tag_is(text, "v", "BIMI1")


def parse_bimi(text: str) -> Bimi:
    """Parse a record. Raises RecordError for an invalid one."""
    if not is_bimi(text):
        raise RecordError("it does not begin with v=BIMI1")
    tags = parse_tags(text)
    reject_unknown_tags(tags, _KNOWN)
    for name in ("l", "a"):
        if tags.get(name) and not tags[name].lower().startswith("https://"):
            raise RecordError(f"{name}={tags[name][:80]} is not an https URL")
    if tags.get("avp", "brand").lower() not in ("brand", "personal"):
        raise RecordError(f"avp={tags['avp']}: brand and personal are allowed")
    for selector in tags["lps"].split(",") if "lps" in tags else ():
        if not _SELECTOR.fullmatch(selector.strip().lower()):
            raise RecordError(f"lps={selector.strip()} is not a valid selector")
    return Bimi(logo=tags.get("l", ""), evidence=tags.get("a", ""))
