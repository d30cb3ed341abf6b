"""Cuts a report down to what is kept: rows about our domains, equal ones added up, and of many the largest."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from postroad.dns.reports.dmarc import MAX_COUNT, DmarcReport, DmarcRow
from postroad.dns.reports.tls import TlsReport, TlsRow

MAX_KEPT_ROWS = 500
"""Of one report: sources of mail in one domain's name, as one receiver saw them."""

_Row = TypeVar("_Row", DmarcRow, TlsRow)


def is_ours(domain: str, ours: Collection[str]) -> bool:
    """Whether a domain is one of ours, or above or below one: a policy may be that of the organisational domain."""
    domain = domain.lower().rstrip(".")
    if "." not in domain:
        return False
    return any(domain == own or own.endswith(f".{domain}") or domain.endswith(f".{own}") for own in ours)


def condense(report: DmarcReport | TlsReport, ours: Collection[str] | None) -> DmarcReport | TlsReport | None:
    """Return what is kept of a report; None: it is about no domain of ours. ``ours`` None: every domain counts."""
    if ours is not None and not is_ours(report.domain, ours):
        return None
    if isinstance(report, DmarcReport):
        rows, left_out = _largest([row for row in report.rows if ours is None or is_ours(row.header_from, ours)])
        return replace(report, rows=rows, left_out=left_out)
    sessions, left_out = _largest([row for row in report.rows if ours is None or is_ours(row.domain, ours)])
    return replace(report, rows=sessions, left_out=left_out)


def _largest(rows: Collection[_Row]) -> tuple[tuple[_Row, ...], int]:
    counts: dict[_Row, int] = {}
    for row in rows:
        key = replace(row, count=0)
        counts[key] = counts.get(key, 0) + row.count
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    kept = tuple(replace(row, count=min(count, MAX_COUNT)) for row, count in ranked[:MAX_KEPT_ROWS])
    return kept, len(ranked) - len(kept)
