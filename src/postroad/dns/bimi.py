"""A record that names a logo: BIMI (draft-brand-indicators-for-message-identification)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from postroad.dns.tags import RecordError, first_tag_is, parse_tags, refuse_unknown

_KNOWN = ("v", "l", "a", "avp", "lps")
_SELECTOR = re.compile(r"[a-z0-9-]{1,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bimi:
    """``logo`` and ``evidence`` are https URIs; empty: the domain declines."""

    logo: str
    evidence: str


def is_bimi(text: str) -> bool:
    return first_tag_is(text, "v", "BIMI1")


def parse_bimi(text: str) -> Bimi:
    """Parse a record. Raises RecordError."""
    if not is_bimi(text):
        raise RecordError("it does not begin with v=BIMI1")
    tags = parse_tags(text)
    refuse_unknown(tags, _KNOWN)
    for name in ("l", "a"):
        if tags.get(name) and not tags[name].lower().startswith("https://"):
            raise RecordError(f"{name}={tags[name][:80]} is no https address")
    if tags.get("avp", "brand").lower() not in ("brand", "personal"):
        raise RecordError(f"avp={tags['avp']}: brand and personal are allowed")
    for selector in tags["lps"].split(",") if "lps" in tags else ():
        if not _SELECTOR.fullmatch(selector.strip().lower()):
            raise RecordError(f"lps={selector.strip()} is no selector")
    return Bimi(logo=tags.get("l", ""), evidence=tags.get("a", ""))
