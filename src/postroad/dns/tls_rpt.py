"""Parses TLS-RPT records, which name the recipients of reports about TLS (RFC 8460 §3)."""

from __future__ import annotations

import re

from postroad.dns.tags import RecordError, first_tag_is, parse_tags

_PLACE = re.compile(r"(mailto:[^@\s]+@[^@\s]+\.[^@\s]+|https://[^\s/]+\S*)", re.IGNORECASE)


def is_tls_rpt(text: str) -> bool:
    return first_tag_is(text, "v", "TLSRPTv1")


def parse_tls_rpt(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the URIs of recipients, and the faults of the record. Raises RecordError if there is no valid URI."""
    if not is_tls_rpt(text):
        raise RecordError("it does not begin with v=TLSRPTv1")
    faults: list[str] = []
    places = [place.strip() for place in parse_tags(text, faults).get("rua", "").split(",")]
    good = tuple(place for place in places if _PLACE.fullmatch(place))
    faults += [f"rua={place[:80]}: mailto:… and https://… are allowed" for place in places if place not in good]
    if not good:
        raise RecordError("; ".join(faults))
    return good, tuple(faults)
