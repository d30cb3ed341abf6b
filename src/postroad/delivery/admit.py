"""The last look before the wire: one statement moves a claimed batch to ``sending`` in the ledger, or says why not.

What the queue forgets or repeats cannot send a touch twice, because only the ledger lets one on the wire; and a
suppression, a pause or a cancellation holds from the moment it is written. See docs/adr/0004.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import assert_never

import sqlalchemy as sa

from postroad.clock import Clock
from postroad.delivery.job import DeliveryNote, encode_note, touch_of
from postroad.queue import Cancel, Claimed, Defer, Uncertain, Verdict
from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from postroad.store.ledger import Claim, Refused, TouchState, admit, refused

PAUSED_DELAY_MS = 60_000
"""A job of a paused campaign that slips past its gate is looked at again after this."""


class Admission:
    """Admits claimed batches to the wire."""

    def __init__(self, engine: sa.Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def __call__(self, batch: Sequence[Claimed]) -> Mapping[str, Verdict]:
        """Return a verdict for each job that may not be sent. Raises UnavailableError: none may."""
        return await asyncio.to_thread(self._admit, batch)

    def _admit(self, batch: Sequence[Claimed]) -> dict[str, Verdict]:
        by_touch = {touch_of(job.id): job for job in batch}
        with write(self._engine) as connection:
            admitted = admit(connection, [Claim(touch_id, job.token, job.closed) for touch_id, job in by_touch.items()])
            rest = by_touch.keys() - admitted
            why = refused(connection, list(rest)) if rest else {}
        return {by_touch[touch_id].id: self._verdict(why.get(touch_id)) for touch_id in rest}

    def _verdict(self, row: Refused | None) -> Verdict:
        if row is None:
            return Cancel(cause="not in the ledger")
        state = TouchState(row.state)
        if state is TouchState.SENDING or state is TouchState.UNKNOWN:
            return Uncertain(
                cause="claimed before, and nobody knows what became of it",
                note=encode_note(DeliveryNote(state=TouchState.UNKNOWN, cause="queue lost its claim")),
            )
        if state.ended:
            return Cancel(cause=f"already {state}")
        if row.suppressed:
            return _cancel(TouchState.SUPPRESSED, "suppressed")
        match CampaignState(row.campaign_state):
            case CampaignState.PAUSED | CampaignState.DRAFT:
                return Defer(at_ms=self._clock.now_ms() + PAUSED_DELAY_MS, cause="campaign paused")
            case CampaignState.CANCELLED | CampaignState.FINISHED:
                return _cancel(TouchState.CANCELLED, "campaign cancelled")
            case CampaignState.RUNNING:
                # It moved between the two statements' readings of it; the next claim finds out.
                return Defer(at_ms=self._clock.now_ms() + 1_000, cause="the ledger moved")
            case other:
                assert_never(other)


def _cancel(state: TouchState, cause: str) -> Cancel:
    return Cancel(cause=cause, note=encode_note(DeliveryNote(state=state, cause=cause)))
