"""A DMARC aggregate report: RFC 9990, and RFC 7489 appendix C, which most receivers still write."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import ClassVar

from postroad.dns.reports.problems import Problems, named_text
from postroad.dns.reports.xml import Node, parse_xml
from postroad.errors import DataError

MAX_ROWS = 200_000
MAX_COUNT = 10**10
"""Of one row: sums of many rows stay within 64 bits."""
UNKNOWN_WRITER = "unknown"
_MAX_TEXT = 255
_EPOCH = re.compile(r"\d{1,20}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class DmarcRow:
    """Mail of one source. ``dkim`` and ``spf``: whether each passed *and* was aligned; either one is enough."""

    source_ip: str
    count: int
    disposition: str
    dkim: bool
    spf: bool
    header_from: str
    envelope_from: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DmarcReport:
    """One receiver's account of one domain over a time.

    ``policy``: what it found published. ``left_out``: rows that are not kept. ``problems``: what could not be read.
    The times are None where the report has none.
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
    """Parse the XML as far as it can be read.

    ``domain``: the policy domain by the name of the file, for a report without one. Raises DataError, with what is
    wrong, if no row can be read.
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
                pass  # version, and what extensions add

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
        raise problems.refuse("it is no report of DMARC")
    return report


def _organisation(metadata: Node, problems: Problems) -> str:
    organisation = named_text(metadata.first("org_name").text)
    if organisation:
        return organisation
    problems.add("report_metadata: org_name is missing, too long, or has control characters")
    return named_text(metadata.first("email").text.rpartition("@")[2]).lower() or UNKNOWN_WRITER


def _report_id(metadata: Node, data: bytes, problems: Problems) -> str:
    """Return the id, or a digest of the report in its place: the same report must be known again."""
    report_id = named_text(metadata.first("report_id").text)
    if report_id:
        return report_id
    problems.add("report_metadata: report_id is missing, too long, or has control characters")
    return sha256(data).hexdigest()[:32]


def _policy_domain(published: Node, rows: list[DmarcRow], domain: str, problems: Problems) -> str:
    """Return the domain of the policy, or else that of the file's name, or else the one most records are about."""
    named = named_text(published.first("domain").text)
    if not named:
        problems.add("policy_published: domain is missing, too long, or has control characters")
        [[named, _]] = Counter(row.header_from for row in rows).most_common(1) or [("", 0)]
        named = domain or named
    return named.lower().rstrip(".")


def _row(record: Node, where: str, problems: Problems) -> DmarcRow | None:
    """Return the row of a record; None, with the reason among the problems, if it cannot be counted."""
    row, identifiers = record.first("row"), record.first("identifiers")
    evaluated = row.first("policy_evaluated")
    source_ip = _address(row.first("source_ip").text)
    count = row.first("count").text
    header_from = named_text(identifiers.first("header_from").text).lower()
    wrong = record.wrong
    if not source_ip:
        wrong = wrong or f"source_ip {row.first('source_ip').text[:60]!r} is no address"
    if not _is_count(count):
        wrong = wrong or f"count {count[:40]!r} is no number up to {MAX_COUNT:,}"
    if not header_from:
        wrong = wrong or "header_from is missing, too long, or has control characters"
    if wrong:
        problems.add(f"{where}: {wrong}")
        return None
    dkim, spf = evaluated.first("dkim").text.lower(), evaluated.first("spf").text.lower()
    if not dkim and not spf:
        problems.add(f"{where}: policy_evaluated has no results, so that it counts as not passed")
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
    """Return an address as it is usually written; empty: it is none. Some writers add brackets, a zone, or `IPv6:`."""
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
    """Return begin and end. One that is missing, or is no date, is taken to be the other."""
    begins_at, ends_at = (_date(dates.first(name).text, name) for name in ("begin", "end"))
    for name, date in (("begin", begins_at), ("end", ends_at)):
        if date is None:
            problems.add(f"date_range: {name} {dates.first(name).text[:40]!r} is no time")
    return begins_at or ends_at, ends_at or begins_at


def _date(text: str, name: str) -> datetime | None:
    """Return a time in seconds since 1970 or, as some write it, by ISO 8601. Raises DataError outside the years."""
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
    """Return a time in UTC, which is meant where no zone is named. Raises DataError outside the years 1 to 9999."""
    try:
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except OverflowError:
        raise DataError(f"its time {date} is not between the years 1 and 9999") from None
