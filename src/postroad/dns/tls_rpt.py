"""Where reports about TLS go: the record of RFC 8460 §3."""

from __future__ import annotations

import re

from postroad.dns.tags import RecordError, first_tag_is, read_tags

_PLACE = re.compile(r"(mailto:[^@\s]+@[^@\s]+\.[^@\s]+|https://[^\s/]+\S*)", re.IGNORECASE)


def is_tls_rpt(text: str) -> bool:
    return first_tag_is(text, "v", "TLSRPTv1")


def read_tls_rpt(text: str) -> tuple[str, ...]:
    """Return the places that reports go to. Raises RecordError."""
    if not is_tls_rpt(text):
        raise RecordError("it does not begin with v=TLSRPTv1")
    places = [place.strip() for place in read_tags(text).get("rua", "").split(",")]
    for place in places:
        if not _PLACE.fullmatch(place):
            raise RecordError(f"rua={place[:80]}: mailto:… and https://… are allowed")
    return tuple(places)
