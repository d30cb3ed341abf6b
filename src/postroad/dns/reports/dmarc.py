"""Parses DMARC aggregate reports (RFC 9990, and RFC 7489 appendix C, which most receivers still use)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import ClassVar

from postroad.dns.reports.problems import Problems, clean_text
from postroad.dns.reports.xml import Node, parse_xml
from postroad.errors import DataError

MAX_ROWS = 200_000
MAX_COUNT = 10**10
"""Maximum count of a row, so that sums of many rows fit into 64 bits."""
UNKNOWN_WRITER = "unknown"
_MAX_TEXT = 255
_EPOCH = re.compile(r"\d{1,20}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class DmarcRow:
    """Mail of one source. ``dkim`` and ``spf``: whether each passed *and* was aligned. DMARC requires one of them."""

    source_ip: str
    count: int
    disposition: str
    dkim: bool
    spf: bool
    header_from: str
    envelope_from: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DmarcReport:
    """One receiver's report about one domain for a period.

    Attributes:
        organisation: The receiver.
        report_id: The receiver's id of the report.
        domain: The domain of the policy.
        policy: The published policy.
        begins_at: Begin of the period. None if the report contains no time.
        ends_at: End of the period, likewise.
        rows: Mail by source.
        left_out: The number of rows that are missing in ``rows``.
        problems: What could not be parsed.
    """

    kind: ClassVar[str] = "dmarc"
    organisation: str
    report_id: str
    domain: str
    policy: str
    begins_at: datetime | None
    ends_at: datetime | None
    rows: tuple[DmarcRow, ...]
    left_out: int = 0
    problems: tuple[str, ...] = ()


def parse_dmarc_report(data: bytes, domain: str = "") -> DmarcReport:
    """Parse the XML, ignoring invalid parts.

    Args:
        data: The report.
        domain: The policy domain in the name of the file, for a report without one.

    Returns:
        The report.

    Raises:
        DataError: No row can be parsed. The error contains the problems.
    """
    metadata, published, rows = Node(), Node(), list[DmarcRow]()
    problems, records = Problems(), 0

    def part(name: str, node: Node) -> None:
        nonlocal metadata, published, records
        match name:
            case "report_metadata":
                metadata = node
            case "policy_published":
                published = node
            case "record":
                records += 1
                if records > MAX_ROWS:
                    raise DataError(f"it has more than {MAX_ROWS:,} records")
                row = _row(node, f"record {records}", problems)
                rows.extend([row] if row else [])
            case _:
                pass  # version and extensions

    parse_xml(data, "feedback", part, problems)
    begins_at, ends_at = _dates(metadata.first("date_range"), problems)
    report = DmarcReport(
        organisation=_organisation(metadata, problems),
        report_id=_report_id(metadata, data, problems),
        domain=_policy_domain(published, rows, domain, problems),
        policy=_short(published, "p", 16) or "none",
        begins_at=begins_at,
        ends_at=ends_at,
        rows=tuple(rows),
        left_out=records - len(rows),
        problems=problems.all(),
    )
    if report.problems and not rows:
        raise problems.error("it is not a DMARC report")
    return report


def _organisation(metadata: Node, problems: Problems) -> str:
    organisation = clean_text(metadata.first("org_name").text)
    if organisation:
        return organisation
    problems.add("report_metadata: org_name is missing, too long, or has control characters")
    return clean_text(metadata.first("email").text.rpartition("@")[2]).lower() or UNKNOWN_WRITER


def _report_id(metadata: Node, data: bytes, problems: Problems) -> str:
    """Return the id, else a digest of the report, by which the same report is recognised."""
    report_id = clean_text(metadata.first("report_id").text)
    if report_id:
        return report_id
    problems.add("report_metadata: report_id is missing, too long, or has control characters")
    return sha256(data).hexdigest()[:32]


def _policy_domain(published: Node, rows: list[DmarcRow], domain: str, problems: Problems) -> str:
    """Return the domain of the policy, else that of the file's name, else the most frequent one of the records."""
    named = clean_text(published.first("domain").text)
    if not named:
        problems.add("policy_published: domain is missing, too long, or has control characters")
        [[named, _]] = Counter(row.header_from for row in rows).most_common(1) or [("", 0)]
        named = domain or named
    return named.lower().rstrip(".")


def _row(record: Node, where: str, problems: Problems) -> DmarcRow | None:
    """Return the row of a record. If the record is invalid, add the reason to the problems and return None."""
    row, identifiers = record.first("row"), record.first("identifiers")
    evaluated = row.first("policy_evaluated")
    source_ip = _address(row.first("source_ip").text)
    count = row.first("count").text
    header_from = clean_text(identifiers.first("header_from").text).lower()
    wrong = record.wrong
    if not source_ip:
        wrong = wrong or f"source_ip {row.first('source_ip').text[:60]!r} is not an address"
    if not _is_count(count):
        wrong = wrong or f"count {count[:40]!r} is not a number up to {MAX_COUNT:,}"
    if not header_from:
        wrong = wrong or "header_from is missing, too long, or has control characters"
    if wrong:
        problems.add(f"{where}: {wrong}")
        return None
    dkim, spf = evaluated.first("dkim").text.lower(), evaluated.first("spf").text.lower()
    if not dkim and not spf:
        problems.add(f"{where}: policy_evaluated has no results, so it counts as failed")
    return DmarcRow(
        source_ip=source_ip,
        count=int(count),
        disposition=_short(evaluated, "disposition", 16) or "none",
        dkim=dkim == "pass",
        spf=spf == "pass",
        header_from=header_from,
        envelope_from=_short(identifiers, "envelope_from", _MAX_TEXT),
    )


def _address(text: str) -> str:
    """Return an address in its usual form, or "" if it is invalid. Accepts brackets, a zone, and the prefix `IPv6:`."""
    text = text.strip("[]").partition("%")[0]  # A zone (fe80::1%eth0) may have any length.
    try:
        address = ip_address(text[5:] if text[:5].lower() == "ipv6:" else text)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _short(node: Node, name: str, length: int) -> str:
    return "".join(c for c in node.first(name).text[:length].lower() if c.isprintable())


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_COUNT)) and int(text) <= MAX_COUNT


def _dates(dates: Node, problems: Problems) -> tuple[datetime | None, datetime | None]:
    """Return begin and end. If one is missing or invalid, it is assumed to equal the other."""
    begins_at, ends_at = (_date(dates.first(name).text, name) for name in ("begin", "end"))
    for name, date in (("begin", begins_at), ("end", ends_at)):
        if date is None:
            problems.add(f"date_range: {name} {dates.first(name).text[:40]!r} is not a time")
    return begins_at or ends_at, ends_at or begins_at


def _date(text: str, name: str) -> datetime | None:
    """Parse a time in seconds since the epoch or, as in some reports, in ISO 8601. Raises DataError if out of range."""
    try:
        if not _EPOCH.fullmatch(text):
            return in_utc(datetime.fromisoformat(text))
    except ValueError:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise DataError(f"date_range: {name} {text[:40]!r} is not between the years 1 and 9999") from None


def in_utc(date: datetime) -> datetime:
    """Convert a time to UTC, which is also assumed if there is no zone. Raises DataError outside years 1 to 9999."""
    try:
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except OverflowError:
        raise DataError(f"its time {date} is not between the years 1 and 9999") from None
