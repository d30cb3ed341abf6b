"""Decides what becomes of jobs that a frequency cap rejects: they wait, or are skipped."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from postroad.delivery.result import cancel_with
from postroad.queue import ClaimedJob, Defer, Verdict
from postroad.store.campaign import CampaignState
from postroad.store.frequency import FrequencyRule, frequency_holds
from postroad.store.ledger import ON_THE_WIRE, WAITING, TouchState
from postroad.store.touches.sending import Claim, HeldTouch, RejectedClaim, hold

WIRE_DELAY_MS = 60_000
"""Retry delay for a job that exceeds its cap only if a message on the wire is accepted."""


def frequency_verdicts(
    connection: sa.Connection,
    rejected: Mapping[int, RejectedClaim],
    claims: Mapping[int, Claim],
    jobs: Mapping[int, ClaimedJob],
    rule: FrequencyRule,
) -> dict[int, Verdict]:
    """Return the verdicts of rejected claims that a frequency cap holds.

    A job waits in the queue until its time. If it would expire there, its touch becomes ``planned`` with that due time.

    Args:
        connection: A connection in the transaction of the admission.
        rejected: Why each claim was rejected, by touch.
        claims: The claims, by touch.
        jobs: Their jobs, by touch.
        rule: The frequency caps.
    """
    rows = {touch_id: row for touch_id, row in rejected.items() if _may_leave(row, claims[touch_id])}
    if not rows:
        return {}
    verdicts: dict[int, Verdict] = {}
    late: dict[int, HeldTouch] = {}
    for touch_id, over in frequency_holds(connection, list(rows), rule).items():
        expires_ms = jobs[touch_id].expires_ms
        if over.skip:
            verdicts[touch_id] = cancel_with(TouchState.SKIPPED, over.cause)
            continue
        verdicts[touch_id] = Defer(delay_ms=WIRE_DELAY_MS, cause=over.cause, untried=True)
        if over.until is None or rows[touch_id].state not in WAITING:
            continue
        if expires_ms and over.until_ms >= expires_ms:
            late[touch_id] = HeldTouch(touch_id, over.until, over.cause)
        else:
            verdicts[touch_id] = Defer(at_ms=over.until_ms, cause=over.cause, untried=True)
    for touch_id in hold(connection, list(late.values())) if late else ():
        verdicts[touch_id] = cancel_with(TouchState.QUEUED, late[touch_id].why)
    return verdicts


def _may_leave(row: RejectedClaim, claim: Claim) -> bool:
    """Return whether nothing but a frequency cap rejects a claim."""
    waits = row.state in WAITING or (row.state in ON_THE_WIRE and row.claim in claim.closed)
    runs = row.campaign_state == CampaignState.RUNNING and row.sender_id == claim.sender_id
    same = row.version == claim.version and not row.recalled
    return waits and runs and same and not row.suppressed
