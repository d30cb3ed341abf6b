"""Reduces a report to what is stored: rows about our domains, with equal rows added up, the largest ones only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from postroad.dns.reports.dmarc import MAX_COUNT, DmarcReport, DmarcRow
from postroad.dns.reports.tls import TlsReport, TlsRow

MAX_KEPT_ROWS = 500
"""Maximum number of rows that are stored of one report."""

MAX_DOMAIN_CHARACTERS = 253
"""RFC 1035 §2.3.4, as text. A longer domain would be truncated when it is stored, and would no longer match ours."""

_Row = TypeVar("_Row", DmarcRow, TlsRow)


def owner_of(domain: str, ours: Collection[str]) -> str | None:
    """Return the highest domain of ours that equals a domain or is above it, or None."""
    domain = _normalised(domain)
    if len(domain) > MAX_DOMAIN_CHARACTERS:
        return None
    return min((own for own in ours if domain == own or domain.endswith(f".{own}")), key=len, default=None)


def policy_owner_of(domain: str, ours: Collection[str]) -> str | None:
    """Return `owner_of` a domain, else the first domain of ours below it, as a DMARC policy may be inherited."""
    below = [own for own in ours if "." in domain and own.endswith(f".{_normalised(domain)}")]
    return owner_of(domain, ours) or min(below, default=None)


def condense(report: DmarcReport | TlsReport, ours: Collection[str] | None) -> DmarcReport | TlsReport | None:
    """Reduce a report.

    Args:
        report: The report.
        ours: Our domains. None: all domains count as ours.

    Returns:
        The reduced report. None if it is about no domain of ours.
    """
    domain = _normalised(report.domain)
    if isinstance(report, DmarcReport):
        rows, left_out = _largest([row for row in report.rows if ours is None or owner_of(row.header_from, ours)])
        if ours is not None and not owner_of(domain, ours) and not (rows and policy_owner_of(domain, ours)):
            return None  # A domain above ours, such as a public suffix, is also above those of others.
        return replace(report, domain=domain, rows=rows, left_out=report.left_out + left_out)
    if ours is not None and not owner_of(domain, ours):
        return None
    sessions, left_out = _largest([row for row in report.rows if ours is None or owner_of(row.domain, ours)])
    return replace(report, domain=domain, rows=sessions, left_out=report.left_out + left_out)


def _normalised(domain: str) -> str:
    return domain.lower().rstrip(".")


def _largest(rows: Collection[_Row]) -> tuple[tuple[_Row, ...], int]:
    counts: dict[_Row, int] = {}
    for row in rows:
        key = replace(row, count=0)
        counts[key] = counts.get(key, 0) + row.count
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    kept = tuple(replace(row, count=min(count, MAX_COUNT)) for row, count in ranked[:MAX_KEPT_ROWS])
    return kept, len(ranked) - len(kept)
