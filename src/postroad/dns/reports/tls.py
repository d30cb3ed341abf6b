"""Parses reports about TLS (RFC 8460 §4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, ClassVar

import msgspec

from postroad.dns.reports.dmarc import MAX_COUNT, UNKNOWN_WRITER, in_utc
from postroad.dns.reports.encoding import to_utf8
from postroad.dns.reports.problems import Problems, clean_text
from postroad.errors import DataError

MAX_ROWS = 50_000
MAX_VALUES = 1_000_000
"""Maximum number of members of objects and lists in a report, checked before it is decoded."""
UNKNOWN_TYPE = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsRow:
    """Sessions with one result. ``result``: `success` or a failure type. ``source``: the sending host's address."""

    domain: str
    policy: str
    result: str
    count: int
    source: str = ""
    mail_host: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsReport:
    """One sender's report about TLS to a domain's mail hosts for a period.

    Attributes:
        organisation: The sender.
        report_id: The sender's id of the report.
        domain: The policy domain. Empty if the report names none.
        begins_at: Begin of the period. None if the report contains no time.
        ends_at: End of the period, likewise.
        rows: Sessions by result.
        left_out: The number of rows that are missing in ``rows``.
        problems: What could not be parsed.
    """

    kind: ClassVar[str] = "tls"
    organisation: str
    report_id: str
    domain: str
    begins_at: datetime | None
    ends_at: datetime | None
    rows: tuple[TlsRow, ...]
    left_out: int = 0
    problems: tuple[str, ...] = ()


_decode = msgspec.json.Decoder().decode
Members = dict[str, Any]


def parse_tls_report(data: bytes, domain: str = "") -> TlsReport:
    """Parse the JSON, ignoring invalid parts.

    Args:
        data: The report.
        domain: The policy domain in the name of the file, for a report without one.

    Returns:
        The report.

    Raises:
        DataError: No row can be parsed. The error contains the problems.
    """
    problems = Problems()
    report = _members(_json(data, problems))
    policies = _items(report.get("policies"), "policies", problems)
    if not policies:
        raise DataError("it is not a TLS report: it has 0 policies")
    if sum(2 + len(_items(_members(one).get("failure-details"), "", None)) for one in policies) > 2 * MAX_ROWS:
        raise DataError(f"it has more than {MAX_ROWS:,} rows")
    named = [_policy_domain(_members(_members(one).get("policy"))) for one in policies]
    domain = next(filter(None, named), domain.lower())
    rows = [
        row
        for number, (one, own) in enumerate(zip(policies, named, strict=True), 1)
        for row in _policy_rows(_members(one), own, domain, f"policy {number}", problems)
    ]
    if len(rows) > MAX_ROWS:
        raise DataError(f"it has {len(rows):,} rows; at most {MAX_ROWS:,} are read")
    begins_at, ends_at = _dates(_members(report.get("date-range")), problems)
    result = TlsReport(
        organisation=_organisation(report, problems),
        report_id=_report_id(report, data, problems),
        domain=domain,
        begins_at=begins_at,
        ends_at=ends_at,
        rows=tuple(rows),
        problems=problems.all(),
    )
    if result.problems and not rows:
        raise problems.error("it is not a TLS report")
    return result


def _json(data: bytes, problems: Problems) -> object:
    data = to_utf8(data, problems)
    if data.count(b",") + data.count(b"{") + data.count(b"[") > MAX_VALUES:
        raise DataError(f"it has more than {MAX_VALUES:,} values")
    try:
        value = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"it is not a TLS report: {error}") from None
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _members(value: object) -> Members:
    """Return an object with its names spelled as in RFC 8460, or an empty one if the value is not an object."""
    return {name.lower().replace("_", "-"): member for name, member in value.items()} if isinstance(value, dict) else {}


def _items(value: object, name: str, problems: Problems | None) -> list[Any]:
    """Return the objects in a list. A single object counts as a list of one."""
    members = value if isinstance(value, list) else [] if value is None else [value]
    items = [item for item in members if isinstance(item, dict)]
    if problems is not None and len(items) < len(members):
        problems.add(f"{name}: {len(members) - len(items):,} are not objects")
    return items


def _policy_domain(policy: Members) -> str:
    return clean_text(policy.get("policy-domain")).lower()


def _policy_rows(result: Members, named: str, domain: str, where: str, problems: Problems) -> list[TlsRow]:
    if not named:
        problems.add(f"{where}: policy-domain is missing, too long, or has control characters")
        named = domain
    kind = _text(_members(result.get("policy")), "policy-type", where, problems)
    summary = _members(result.get("summary"))
    success = _count(summary, "total-successful-session-count", where, problems, missing=0) or 0
    failure = _count(summary, "total-failure-session-count", where, problems, missing=0) or 0
    rows = [TlsRow(domain=named, policy=kind, result="success", count=success)] if success else []
    counted = 0
    for number, item in enumerate(_items(result.get("failure-details"), f"{where}: failure-details", problems), 1):
        details, at = _members(item), f"{where}, failure {number}"
        count = _count(details, "failed-session-count", at, problems)
        if count is None:
            continue
        counted += count
        rows.append(
            TlsRow(
                domain=named,
                policy=kind,
                result=_text(details, "result-type", at, problems),
                count=count,
                source=clean_text(details.get("sending-mta-ip")),
                mail_host=clean_text(details.get("receiving-mx-hostname")).lower(),
            )
        )
    # The details may not cover every failure (§4.4). The others are stored without a reason.
    if failure > counted:
        rows.append(TlsRow(domain=named, policy=kind, result="failure", count=failure - counted))
    return rows


def _text(members: Members, name: str, where: str, problems: Problems) -> str:
    text = clean_text(members.get(name))
    if not text:
        problems.add(f"{where}: {name} is missing, too long, or has control characters")
    return text or UNKNOWN_TYPE


def _count(members: Members, name: str, where: str, problems: Problems, missing: int | None = None) -> int | None:
    """Return a count, which may be written as text. If it is absent, return ``missing``. If it is invalid, None."""
    value = members.get(name)
    if value is None and missing is not None:
        return missing
    if isinstance(value, str) and value.isascii() and value.strip().isdecimal() and len(value) <= len(str(MAX_COUNT)):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
        return value
    problems.add(f"{where}: {name} {str(value)[:40]!r} is not a number up to {MAX_COUNT:,}")
    return None


def _organisation(report: Members, problems: Problems) -> str:
    organisation = clean_text(report.get("organization-name"))
    if organisation:
        return organisation
    problems.add("organization-name is missing, too long, or has control characters")
    return clean_text(clean_text(report.get("contact-info")).rpartition("@")[2]).lower() or UNKNOWN_WRITER


def _report_id(report: Members, data: bytes, problems: Problems) -> str:
    """Return the id, else a digest of the report, by which the same report is recognised."""
    value = report.get("report-id")
    report_id = clean_text(str(value) if isinstance(value, int) else value)
    if report_id:
        return report_id
    problems.add("report-id is missing, too long, or has control characters")
    return sha256(data).hexdigest()[:32]


def _dates(dates: Members, problems: Problems) -> tuple[datetime | None, datetime | None]:
    """Return begin and end. If one is missing or invalid, it is assumed to equal the other."""
    begins_at, ends_at = (_date(dates.get(name)) for name in ("start-datetime", "end-datetime"))
    for name, date in (("start-datetime", begins_at), ("end-datetime", ends_at)):
        if date is None:
            problems.add(f"date-range: {name} {str(dates.get(name))[:40]!r} is not a time")
    return begins_at or ends_at, ends_at or begins_at


def _date(value: object) -> datetime | None:
    """Parse a time in RFC 3339 or, as in some reports, in seconds since the epoch. Raises DataError if out of range."""
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        return in_utc(datetime.fromisoformat(value.strip())) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
