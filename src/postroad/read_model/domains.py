"""Whether receivers see our domains as we think: the last DNS check of each sender, what changed, and holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from msgspec import Struct

from postroad.dns.finding import Finding, RecordVerdict
from postroad.dns.health import difference
from postroad.senders.dns_health import findings_of
from postroad.store.dns_report import SenderHold, newest_reports, open_holds


class DomainState(Struct, frozen=True, kw_only=True):
    """What the last DNS check of a sender found. ``verdict``, ``checked_at`` and ``findings`` are empty before it.

    ``appeared`` and ``disappeared``: findings that differ from the check before. ``hold``: since when its domain fails,
    and whether the sender is held.
    """

    sender: str
    domain: str
    verdict: RecordVerdict | None
    checked_at: datetime | None
    checked_before_at: datetime | None
    findings: Sequence[Finding]
    appeared: Sequence[Finding]
    disappeared: Sequence[Finding]
    hold: SenderHold | None


def domain_states(connection: sa.Connection, addresses: Sequence[str]) -> list[DomainState]:
    """Return what was found last of these senders.

    Args:
        connection: A connection in a transaction.
        addresses: From addresses of the senders.

    Returns:
        One state for each, in their order.
    """
    holds = open_holds(connection)
    return [_state(connection, address, holds.get(address)) for address in addresses]


def _state(connection: sa.Connection, address: str, hold: SenderHold | None) -> DomainState:
    reports = newest_reports(connection, address, 2)
    found = [findings_of(report) for report in reports]
    change = difference(found[1], found[0]) if len(found) > 1 else None
    return DomainState(
        sender=address,
        domain=reports[0].domain if reports else address.rpartition("@")[2],
        verdict=RecordVerdict(reports[0].verdict) if reports else None,
        checked_at=reports[0].checked_at if reports else None,
        checked_before_at=reports[1].checked_at if len(reports) > 1 else None,
        findings=found[0] if found else (),
        appeared=change.new if change is not None else (),
        disappeared=change.gone if change is not None else (),
        hold=hold,
    )
