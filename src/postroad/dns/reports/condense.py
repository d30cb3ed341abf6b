"""Cuts a report down to what is kept: rows about our domains, equal ones added up, and of many the largest."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from postroad.dns.reports.dmarc import MAX_COUNT, DmarcReport, DmarcRow
from postroad.dns.reports.tls import TlsReport, TlsRow

MAX_KEPT_ROWS = 500
"""Of one report: sources of mail in one domain's name, as one receiver saw them."""

MAX_DOMAIN_CHARACTERS = 253
"""RFC 1035 §2.3.4, written as text. A longer one would be cut, and would not end like ours any more."""

_Row = TypeVar("_Row", DmarcRow, TlsRow)


def owner_of(domain: str, ours: Collection[str]) -> str | None:
    """Return the domain of ours that a domain is or lies below, the highest of several. None: there is none."""
    domain = _spelled(domain)
    if len(domain) > MAX_DOMAIN_CHARACTERS:
        return None
    return min((own for own in ours if domain == own or domain.endswith(f".{own}")), key=len, default=None)


def policy_owner_of(domain: str, ours: Collection[str]) -> str | None:
    """Return `owner_of` a domain, or else the first domain of ours below it: a policy of DMARC may be inherited."""
    below = [own for own in ours if "." in domain and own.endswith(f".{_spelled(domain)}")]
    return owner_of(domain, ours) or min(below, default=None)


def condense(report: DmarcReport | TlsReport, ours: Collection[str] | None) -> DmarcReport | TlsReport | None:
    """Return what is kept of a report; None: it is about no domain of ours. ``ours`` None: every domain counts."""
    domain = _spelled(report.domain)
    if isinstance(report, DmarcReport):
        rows, left_out = _largest([row for row in report.rows if ours is None or owner_of(row.header_from, ours)])
        if ours is not None and not owner_of(domain, ours) and not (rows and policy_owner_of(domain, ours)):
            return None  # What is above ours is that of others too, as a public suffix is.
        return replace(report, domain=domain, rows=rows, left_out=report.left_out + left_out)
    if ours is not None and not owner_of(domain, ours):
        return None
    sessions, left_out = _largest([row for row in report.rows if ours is None or owner_of(row.domain, ours)])
    return replace(report, domain=domain, rows=sessions, left_out=report.left_out + left_out)


def _spelled(domain: str) -> str:
    return domain.lower().rstrip(".")


def _largest(rows: Collection[_Row]) -> tuple[tuple[_Row, ...], int]:
    counts: dict[_Row, int] = {}
    for row in rows:
        key = replace(row, count=0)
        counts[key] = counts.get(key, 0) + row.count
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    kept = tuple(replace(row, count=min(count, MAX_COUNT)) for row, count in ranked[:MAX_KEPT_ROWS])
    return kept, len(ranked) - len(kept)
