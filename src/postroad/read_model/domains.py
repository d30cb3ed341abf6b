"""Whether receivers see our domains as we think: the last DNS check of each sender, what changed, and holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

import sqlalchemy as sa
from msgspec import Struct

from postroad.dns.finding import Finding, RecordVerdict
from postroad.dns.health import difference
from postroad.senders.dns_health import findings_of
from postroad.store.dns_report import KEPT, SenderHold, holds_of, newest_reports, open_holds


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


class DomainChange(Struct, frozen=True, kw_only=True):
    """The difference of one check of a sender from the check before."""

    at: datetime
    verdict: RecordVerdict
    appeared: Sequence[Finding]
    disappeared: Sequence[Finding]


class DomainHistory(Struct, frozen=True, kw_only=True):
    """What the stored checks of a sender say of its past.

    ``checks``: number of stored checks. ``since``: time of the oldest one. ``changes``: checks that differ from the one
    before, the newest first. ``holds``: periods in which its domain failed, the latest first.
    """

    checks: int
    since: datetime | None
    changes: Sequence[DomainChange]
    holds: Sequence[SenderHold]


def domain_history(connection: sa.Connection, address: str) -> DomainHistory:
    """Return the changes of a sender's DNS, and the periods in which it failed.

    Args:
        connection: A connection in a transaction.
        address: From address of the sender.

    Returns:
        The history.
    """
    reports = newest_reports(connection, address, KEPT)
    changes = []
    for newer, older in pairwise(reports):
        change = difference(findings_of(older), findings_of(newer))
        if change.new or change.gone:
            verdict = RecordVerdict(newer.verdict)
            changes.append(
                DomainChange(at=newer.checked_at, verdict=verdict, appeared=change.new, disappeared=change.gone)
            )
    return DomainHistory(
        checks=len(reports),
        since=reports[-1].checked_at if reports else None,
        changes=changes,
        holds=holds_of(connection, address),
    )


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
