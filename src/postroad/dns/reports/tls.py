"""A report about TLS: RFC 8460 §4.4."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, ClassVar

import msgspec

from postroad.dns.reports.dmarc import MAX_COUNT, UNKNOWN_WRITER, in_utc
from postroad.dns.reports.encoding import to_utf8
from postroad.dns.reports.problems import Problems, named_text
from postroad.errors import DataError

MAX_ROWS = 50_000
MAX_VALUES = 1_000_000
"""Of one report: members of objects and lists, counted before they take memory."""
UNKNOWN_TYPE = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsRow:
    """Sessions of one sort. ``result``: `success`, or why they failed. ``source``: the sending host's address."""

    domain: str
    policy: str
    result: str
    count: int
    source: str = ""
    mail_host: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsReport:
    """One sender's account of TLS to a domain's mail hosts over a time.

    ``left_out``: rows that are not kept. ``problems``: what could not be read. ``domain`` is empty where the report
    names none, and the times are None where it has none.
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
    """Parse the JSON as far as it can be read.

    ``domain``: the policy domain by the name of the file, for a report without one. Raises DataError, with what is
    wrong, if no row can be read.
    """
    problems = Problems()
    report = _members(_json(data, problems))
    policies = _items(report.get("policies"), "policies", problems)
    if not policies:
        raise DataError("it is no report about TLS: it has 0 policies")
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
        raise problems.refuse("it is no report about TLS")
    return result


def _json(data: bytes, problems: Problems) -> object:
    data = to_utf8(data, problems)
    if data.count(b",") + data.count(b"{") + data.count(b"[") > MAX_VALUES:
        raise DataError(f"it has more than {MAX_VALUES:,} values")
    try:
        value = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"it is no report about TLS: {error}") from None
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _members(value: object) -> Members:
    """Return an object with its names as RFC 8460 writes them; of anything else an empty one."""
    return {name.lower().replace("_", "-"): held for name, held in value.items()} if isinstance(value, dict) else {}


def _items(value: object, name: str, problems: Problems | None) -> list[Any]:
    """Return the objects of a list. One object that is in no list counts as one of it."""
    held = value if isinstance(value, list) else [] if value is None else [value]
    items = [item for item in held if isinstance(item, dict)]
    if problems is not None and len(items) < len(held):
        problems.add(f"{name}: {len(held) - len(items):,} are no objects")
    return items


def _policy_domain(policy: Members) -> str:
    return named_text(policy.get("policy-domain")).lower()


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
                source=named_text(details.get("sending-mta-ip")),
                mail_host=named_text(details.get("receiving-mx-hostname")).lower(),
            )
        )
    # Details need not account for every failure (§4.4): the rest is kept, without a reason.
    if failure > counted:
        rows.append(TlsRow(domain=named, policy=kind, result="failure", count=failure - counted))
    return rows


def _text(members: Members, name: str, where: str, problems: Problems) -> str:
    text = named_text(members.get(name))
    if not text:
        problems.add(f"{where}: {name} is missing, too long, or has control characters")
    return text or UNKNOWN_TYPE


def _count(members: Members, name: str, where: str, problems: Problems, missing: int | None = None) -> int | None:
    """Return a count, also one that is written as text; None, or ``missing`` where it is absent, if it is none."""
    value = members.get(name)
    if value is None and missing is not None:
        return missing
    if isinstance(value, str) and value.isascii() and value.strip().isdecimal() and len(value) <= len(str(MAX_COUNT)):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
        return value
    problems.add(f"{where}: {name} {str(value)[:40]!r} is no number up to {MAX_COUNT:,}")
    return None


def _organisation(report: Members, problems: Problems) -> str:
    organisation = named_text(report.get("organization-name"))
    if organisation:
        return organisation
    problems.add("organization-name is missing, too long, or has control characters")
    return named_text(named_text(report.get("contact-info")).rpartition("@")[2]).lower() or UNKNOWN_WRITER


def _report_id(report: Members, data: bytes, problems: Problems) -> str:
    """Return the id, or a digest of the report in its place: the same report must be known again."""
    value = report.get("report-id")
    report_id = named_text(str(value) if isinstance(value, int) else value)
    if report_id:
        return report_id
    problems.add("report-id is missing, too long, or has control characters")
    return sha256(data).hexdigest()[:32]


def _dates(dates: Members, problems: Problems) -> tuple[datetime | None, datetime | None]:
    """Return begin and end. One that is missing, or is no time, is taken to be the other."""
    begins_at, ends_at = (_date(dates.get(name)) for name in ("start-datetime", "end-datetime"))
    for name, date in (("start-datetime", begins_at), ("end-datetime", ends_at)):
        if date is None:
            problems.add(f"date-range: {name} {str(dates.get(name))[:40]!r} is no time")
    return begins_at or ends_at, ends_at or begins_at


def _date(value: object) -> datetime | None:
    """Return a time by RFC 3339 or, as some write it, in seconds since 1970. Raises DataError outside the years."""
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        return in_utc(datetime.fromisoformat(value.strip())) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
