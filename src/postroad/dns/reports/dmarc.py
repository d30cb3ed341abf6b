"""A DMARC aggregate report: RFC 9990, and RFC 7489 appendix C, which most receivers still write."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from postroad.dns.reports.xml import Node, read_xml
from postroad.errors import DataError

MAX_ROWS = 200_000
MAX_COUNT = 10**10
"""Of one row: sums of many rows stay within 64 bits."""
_MAX_TEXT = 255


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

    ``policy``: what it found published. ``left_out``: rows that are not kept.
    """

    organisation: str
    report_id: str
    domain: str
    policy: str
    begins_at: datetime
    ends_at: datetime
    rows: tuple[DmarcRow, ...]
    left_out: int = 0


def read_dmarc_report(data: bytes) -> DmarcReport:
    """Read the XML. Raises DataError with the element that is wrong."""
    metadata, published, rows = Node(), Node(), list[DmarcRow]()

    def part(name: str, node: Node) -> None:
        nonlocal metadata, published
        match name:
            case "report_metadata":
                metadata = node
            case "policy_published":
                published = node
            case "record":
                if len(rows) >= MAX_ROWS:
                    raise DataError(f"it has more than {MAX_ROWS:,} records")
                rows.append(_row(node, len(rows) + 1))
            case _:
                pass  # version, and what extensions add

    read_xml(data, "feedback", part)
    dates = metadata.first("date_range")
    return DmarcReport(
        organisation=_text(metadata, "org_name", "report_metadata"),
        report_id=_text(metadata, "report_id", "report_metadata"),
        domain=_text(published, "domain", "policy_published").lower().rstrip("."),
        policy=_short(published, "p", 16) or "none",
        begins_at=_instant(dates, "begin"),
        ends_at=_instant(dates, "end"),
        rows=tuple(rows),
    )


def _row(record: Node, number: int) -> DmarcRow:
    row, identifiers = record.first("row"), record.first("identifiers")
    evaluated = row.first("policy_evaluated")
    where = f"record {number}"
    try:
        # Of an address with a zone (fe80::1%eth0) the zone may have any length.
        source_ip = str(ip_address(row.first("source_ip").text.partition("%")[0]))
    except ValueError:
        raise DataError(f"{where}: source_ip {row.first('source_ip').text[:60]!r} is no address") from None
    return DmarcRow(
        source_ip=source_ip,
        count=_number(row, "count", where),
        disposition=_short(evaluated, "disposition", 16) or "none",
        dkim=evaluated.first("dkim").text.lower() == "pass",
        spf=evaluated.first("spf").text.lower() == "pass",
        header_from=_text(identifiers, "header_from", where).lower(),
        envelope_from=_short(identifiers, "envelope_from", _MAX_TEXT),
    )


def _text(node: Node, name: str, where: str) -> str:
    text = node.first(name).text
    if not text or len(text) > _MAX_TEXT or not text.isprintable():
        raise DataError(f"{where}: {name} is missing, too long, or has control characters")
    return text


def _short(node: Node, name: str, length: int) -> str:
    return "".join(c for c in node.first(name).text[:length].lower() if c.isprintable())


def _number(node: Node, name: str, where: str) -> int:
    text = node.first(name).text
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_COUNT)) and int(text) <= MAX_COUNT):
        raise DataError(f"{where}: {name} {text[:40]!r} is no number up to {MAX_COUNT:,}")
    return int(text)


def _instant(dates: Node, name: str) -> datetime:
    try:
        return datetime.fromtimestamp(_number(dates, name, "date_range"), UTC)
    except (ValueError, OverflowError, OSError):
        raise DataError(f"date_range: {name} {dates.first(name).text[:40]!r} is no instant") from None
