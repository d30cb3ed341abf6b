"""Parses DMARC policy records (RFC 9989 §4.7 and §4.8, which removed `pct`, `rf` and `ri`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from postroad.dns.tags import RecordError, first_tag_is, parse_tags

KNOWN = frozenset({"v", "p", "sp", "np", "adkim", "aspf", "fo", "psd", "rua", "ruf", "t"})
REMOVED = frozenset({"pct", "rf", "ri"})
"""Tags of RFC 7489 that RFC 9989 removed. Receivers ignore them."""

_MAILTO = re.compile(r"mailto:[^\s@,!/?][^\s@,!?]*@[^\s@,!/?]+(\?[\x21-\x7e]*)?", re.IGNORECASE | re.ASCII)
_OTHER_URI = re.compile(r"(?!mailto:)[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+", re.IGNORECASE)
_SIZE = re.compile(r"!\d{1,20}[kmgt]?", re.IGNORECASE)


class DmarcPolicy(StrEnum):
    """How a domain asks receivers to handle mail that fails DMARC."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class PublicSuffix(StrEnum):
    """Whether a domain declares itself a public suffix, under which others register (tag `psd`)."""

    YES = "y"
    NO = "n"
    UNSAID = "u"


@dataclass(frozen=True, kw_only=True, slots=True)
class DmarcRecord:
    """A record as receivers apply it.

    Attributes:
        policy: The policy of the domain (`p`).
        subdomain_policy: The policy of its subdomains (`sp`).
        missing_policy: The policy of subdomains that do not exist (`np`).
        strict_dkim: Whether DKIM alignment is strict (`adkim`).
        strict_spf: Whether SPF alignment is strict (`aspf`).
        public_suffix: Whether the domain is a public suffix (`psd`).
        testing: Whether the policy is tested (`t`).
        reports_to: URIs of aggregate reports (`rua`).
        failures_to: URIs of failure reports (`ruf`).
        policy_named: Whether the record has `p`.
        faults: Faults that receivers ignore.
        doubtful: URIs that receivers may ignore by RFC 9989, and sizes, which it removed.
        ignored: Tags without effect.
    """

    policy: DmarcPolicy
    subdomain_policy: DmarcPolicy
    missing_policy: DmarcPolicy
    strict_dkim: bool
    strict_spf: bool
    public_suffix: PublicSuffix
    testing: bool
    reports_to: tuple[str, ...]
    failures_to: tuple[str, ...]
    policy_named: bool
    faults: tuple[str, ...]
    doubtful: tuple[str, ...]
    ignored: tuple[str, ...]


def is_dmarc(text: str) -> bool:
    """Return whether a TXT record is a DMARC record: its first tag must be v=DMARC1, in capitals (§4.7)."""
    return first_tag_is(text, "v", "DMARC1")


def parse_dmarc(text: str) -> DmarcRecord:
    """Parse a record.

    What is not a tag is ignored, and an invalid value falls back to its default (§4.7). An invalid or missing `p`, or
    an invalid `sp` or `np`, makes the policy none if the record has a `rua`. Otherwise receivers do not apply the
    record (§4.10.1).

    Args:
        text: The text of the TXT record.

    Returns:
        The record as receivers apply it.

    Raises:
        RecordError: Receivers do not apply the record.
    """
    if not is_dmarc(text):
        raise RecordError("it does not begin with v=DMARC1")
    faults: list[str] = []
    doubtful: list[str] = []
    tags = parse_tags(text, faults)
    reports_to = _uris(tags, "rua", faults, doubtful)
    failures_to = _uris(tags, "ruf", faults, doubtful)
    policies = {name: _policy(tags, name, faults) for name in ("p", "sp", "np")}
    if "p" not in tags or any(name in tags and policy is None for name, policy in policies.items()):
        if not reports_to:
            raise RecordError("; ".join(faults) or "it has no p=")
        policies = {"p": DmarcPolicy.NONE, "sp": None, "np": None}
    policy = policies["p"] or DmarcPolicy.NONE
    subdomain = policies["sp"] or policy
    fo = tags.get("fo", "0")
    if any(part.strip().lower() not in ("0", "1", "d", "s") for part in fo.split(":")):
        faults.append(f"fo={fo}: 0, 1, d and s, with colons between, are allowed")
    return DmarcRecord(
        policy=policy,
        subdomain_policy=subdomain,
        missing_policy=policies["np"] or subdomain,
        strict_dkim=_choice(tags, "adkim", "rs", faults) == "s",
        strict_spf=_choice(tags, "aspf", "rs", faults) == "s",
        public_suffix=PublicSuffix(_choice(tags, "psd", "uyn", faults)),
        testing=_choice(tags, "t", "ny", faults) == "y",
        reports_to=reports_to,
        failures_to=failures_to,
        policy_named="p" in tags,
        faults=tuple(faults),
        doubtful=tuple(doubtful),
        ignored=tuple(name for name in tags if name not in KNOWN),
    )


def _policy(tags: Mapping[str, str], name: str, faults: list[str]) -> DmarcPolicy | None:
    if name not in tags:
        return None
    try:
        return DmarcPolicy(tags[name].lower())
    except ValueError:
        faults.append(f"{name}={tags[name]}: none, quarantine and reject are allowed")
        return None


def _choice(tags: Mapping[str, str], name: str, allowed: str, faults: list[str]) -> str:
    """Return the value of a tag of one letter. The first allowed letter is the default."""
    value = tags.get(name, allowed[0]).lower()
    if len(value) == 1 and value in allowed:
        return value
    faults.append(f"{name}={tags[name]}: {' and '.join(allowed)} are allowed")
    return allowed[0]


def _uris(tags: Mapping[str, str], name: str, faults: list[str], doubtful: list[str]) -> tuple[str, ...]:
    """Return the URIs of a tag, without the sizes that RFC 7489 allowed after them."""
    good = []
    for item in tags[name].split(",") if name in tags else ():
        uri, mark, size = item.strip().partition("!")
        is_mail = bool(_MAILTO.fullmatch(uri))
        if not (is_mail or _OTHER_URI.fullmatch(uri)) or (mark and not _SIZE.fullmatch(mark + size)):
            faults.append(f"{name}={item.strip()[:80]} is not a URI such as mailto:dmarc@example.com")
            continue
        good.append(uri)
        if mark or not is_mail:
            doubtful.append(f"{name}={item.strip()[:80]}")
    return tuple(good)
