"""How receivers saw the canaries of senders."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from postroad.dns.finding import Finding, RecordVerdict
from postroad.store.canary_report import newest_canaries

SHOWN = 20


class CanaryState(Struct, frozen=True, kw_only=True):
    """What a receiver made of one canary of a sender."""

    ended_at: datetime
    verdict: RecordVerdict
    findings: Sequence[Finding]


def canaries_of(connection: sa.Connection, address: str, limit: int = SHOWN) -> list[CanaryState]:
    """Return the last canaries of a sender, the newest first.

    Args:
        connection: A connection in a transaction.
        address: From address of the sender.
        limit: Largest number of canaries.

    Returns:
        The canaries.
    """
    return [
        CanaryState(
            ended_at=report.ended_at,
            verdict=RecordVerdict(report.verdict),
            findings=msgspec.convert(report.findings, list[Finding]),
        )
        for report in newest_canaries(connection, address, limit)
    ]


def last_canaries(connection: sa.Connection, addresses: Sequence[str]) -> dict[str, CanaryState]:
    """Return the last canary of each of these senders that has one, by its address."""
    found = {address: canaries_of(connection, address, 1) for address in addresses}
    return {address: canaries[0] for address, canaries in found.items() if canaries}
