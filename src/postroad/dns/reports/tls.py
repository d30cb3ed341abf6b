"""A report about TLS: RFC 8460 §4.4."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from postroad.dns.reports.dmarc import MAX_COUNT
from postroad.errors import DataError

MAX_ROWS = 50_000

_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
Text = Annotated[str, Meta(max_length=255, pattern=_PRINTABLE)]
Named = Annotated[str, Meta(min_length=1, max_length=255, pattern=_PRINTABLE)]
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]


class _Wire(Struct, frozen=True, rename="kebab"):
    """Members that are not known are passed over."""


class _Dates(_Wire, frozen=True):
    start_datetime: datetime
    end_datetime: datetime


class _Policy(_Wire, frozen=True):
    policy_type: Text
    policy_domain: Named


class _Summary(_Wire, frozen=True):
    total_successful_session_count: Count = 0
    total_failure_session_count: Count = 0


class _Failure(_Wire, frozen=True):
    result_type: Text
    failed_session_count: Count
    sending_mta_ip: Text = ""
    receiving_mx_hostname: Text = ""
    receiving_ip: Text = ""


class _PolicyResult(_Wire, frozen=True):
    policy: _Policy
    summary: _Summary
    failure_details: tuple[_Failure, ...] = ()


class _Report(_Wire, frozen=True):
    organization_name: Named
    date_range: _Dates
    report_id: Named
    policies: tuple[_PolicyResult, ...]


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
    """One sender's account of TLS to a domain's mail hosts over a time. ``left_out``: rows that are not kept."""

    organisation: str
    report_id: str
    domain: str
    begins_at: datetime
    ends_at: datetime
    rows: tuple[TlsRow, ...]
    left_out: int = 0


_decoder = msgspec.json.Decoder(_Report)


def read_tls_report(data: bytes) -> TlsReport:
    """Read the JSON. Raises DataError with the member that is wrong."""
    try:
        report = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"it is no report about TLS: {error}") from None
    if sum(2 + len(result.failure_details) for result in report.policies) > 2 * MAX_ROWS:
        raise DataError(f"it has more than {MAX_ROWS:,} rows")
    rows = [row for result in report.policies for row in _rows(result)]
    if not report.policies or len(rows) > MAX_ROWS:
        raise DataError(f"it has {len(report.policies)} policies and {len(rows):,} rows; 1 to {MAX_ROWS:,} are read")
    return TlsReport(
        organisation=report.organization_name,
        report_id=report.report_id,
        domain=report.policies[0].policy.policy_domain.lower(),
        begins_at=_utc(report.date_range.start_datetime),
        ends_at=_utc(report.date_range.end_datetime),
        rows=tuple(rows),
    )


def _rows(result: _PolicyResult) -> list[TlsRow]:
    domain, policy = result.policy.policy_domain.lower(), result.policy.policy_type
    rows = []
    if result.summary.total_successful_session_count:
        count = result.summary.total_successful_session_count
        rows.append(TlsRow(domain=domain, policy=policy, result="success", count=count))
    rows += [
        TlsRow(
            domain=domain,
            policy=policy,
            result=failure.result_type,
            count=failure.failed_session_count,
            source=failure.sending_mta_ip,
            mail_host=failure.receiving_mx_hostname.lower(),
        )
        for failure in result.failure_details
    ]
    # Details need not account for every failure (§4.4): the rest is kept, without a reason.
    rest = result.summary.total_failure_session_count - sum(f.failed_session_count for f in result.failure_details)
    if rest > 0:
        rows.append(TlsRow(domain=domain, policy=policy, result="failure", count=rest))
    return rows


def _utc(instant: datetime) -> datetime:
    try:
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except OverflowError:
        raise DataError(f"its time {instant} is not between the years 1 and 9999") from None
