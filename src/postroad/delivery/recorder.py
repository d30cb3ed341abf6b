"""The recorder: writes the events of the queue to the ledger, in batches, at least once and idempotently.

It acknowledges an event only after the ledger has it. The queue can then forget the id of an ended job, because the
ledger refuses it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from postroad.clock import Clock
from postroad.delivery.job import touch_of
from postroad.delivery.metrics import DeliveryMetrics
from postroad.delivery.result import event_result, has_row, touch_result
from postroad.errors import UnavailableError
from postroad.queue import Event, EventKind, Queue
from postroad.settings import BounceSettings
from postroad.store.bounce import over_soft_limit
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.outcome import DeliveryOutcome, TouchOutcome
from postroad.store.recipient import addresses_of_touches
from postroad.store.same_words import blame_sender_for
from postroad.store.suppression import SuppressionReason, suppress
from postroad.store.touches.results import apply_results, insert_events

log = logging.getLogger(__name__)

GROUP = "recorder"
BATCH = 1_000
GATHER_S = 0.1
"""Delay before the next read after a small batch: a transaction costs as much as some thirty events."""

_FORGET = (EventKind.DONE, EventKind.CANCELLED, EventKind.EXPIRED)
_COUNTED = frozenset(map(str, DeliveryOutcome))


def record(connection: sa.Connection, events: Sequence[Event], now: datetime, bounce: BounceSettings) -> int:
    """Write events to the ledger: a row for each new event, the state of its touch, and suppressions.

    Args:
        connection: A connection in a transaction that writes.
        events: Events of the queue, in order.
        now: The time of the transaction.
        bounce: How many soft bounces in a row suppress an address, and within what time.

    Returns:
        The number of events that report a result.
    """
    results = [(event, result) for event in events if (result := event_result(event)) is not None]
    rows = [touch_result(event, result) for event, result in results]
    kept = [(row, result) for row, (event, result) in zip(rows, results, strict=True) if has_row(event, result)]
    if kept:
        insert_events(connection, [row for row, _ in kept])
    about_sender = blame_sender_for(connection, {row.words for row, _ in kept if row.words}, now)
    apply_results(connection, rows)
    bounced = [
        (row.touch_id, result.suppress)
        for row, result in kept
        if row.state is TouchState.BOUNCED and row.words not in about_sender
    ]
    _suppress(connection, bounced, now, bounce)
    return len(results)


def _suppress(
    connection: sa.Connection, bounced: Sequence[tuple[int, bool]], now: datetime, bounce: BounceSettings
) -> None:
    """Suppress the addresses of touches that bounced, each with whether one bounce suffices."""
    hard = [touch_id for touch_id, suppress_now in bounced if suppress_now]
    if hard:
        addresses = addresses_of_touches(connection, hard)
        suppress(connection, addresses, SuppressionReason.HARD_BOUNCE, "reply at delivery", now)
    soft = [touch_id for touch_id, suppress_now in bounced if not suppress_now]
    if soft:
        # The rows and the limit are those of bounce messages.
        since = now - timedelta(milliseconds=bounce.soft_window_ms)
        addresses = over_soft_limit(connection, soft, since=since, limit=bounce.soft_limit)
        suppress(connection, addresses, SuppressionReason.SOFT_BOUNCE, "replies at delivery", now)


def outcomes_in(events: Sequence[Event]) -> list[TouchOutcome]:
    """Return the outcomes of attempts among events, for metrics."""
    return [
        TouchOutcome(touch_of(event.id), DeliveryOutcome(result.state))
        for event in events
        if (result := event_result(event)) is not None and result.state in _COUNTED
    ]


class Recorder:
    """Reads the events of a queue and records them."""

    def __init__(
        self,
        *,
        engine: sa.Engine,
        queue: Queue,
        clock: Clock,
        name: str,
        bounce: BounceSettings,
        metrics: DeliveryMetrics | None = None,
    ) -> None:
        """Set up the recorder.

        Args:
            engine: The database of the ledger.
            queue: The queue whose events it records.
            clock: Tells the time and sleeps.
            name: Name of the consumer, unique among the recorders of the queue.
            bounce: How many soft bounces in a row suppress an address, and within what time.
            metrics: Counts what was recorded; None: nothing is counted.
        """
        self._metrics = metrics
        self._engine = engine
        self._bounce = bounce
        self._queue = queue
        self._clock = clock
        self._name = name
        self._oldest_ms: int | None = None
        self.recorded = 0

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest event that the last read found. It grows while the database is unavailable."""
        return 0.0 if self._oldest_ms is None else max(self._clock.now_ms() - self._oldest_ms, 0) / 1000

    async def run(self, stop: asyncio.Event) -> None:
        """Record until ``stop`` is set. While the database or the queue is unavailable, wait and lose no event."""
        failures = 0
        while not stop.is_set():
            try:
                recorded = await self.record_next(block_ms=500, stop=stop)
                if 0 < recorded < BATCH:
                    await self._clock.sleep(GATHER_S)
                if failures:
                    log.info("recording again")
                failures = 0
            except UnavailableError as error:
                if failures == 0:
                    log.warning("recording waits: %s", error.message)
                failures += 1
                await self._clock.sleep(min(0.1 * 2**failures, 5.0))

    async def drain(self) -> int:
        """Record all events that exist now. Returns the number of events."""
        before = self.recorded
        while await self.record_next(block_ms=0):
            pass
        return self.recorded - before

    async def record_next(self, *, block_ms: int, stop: asyncio.Event | None = None) -> int:
        """Record one batch. While the database is unavailable, keep only this batch in memory and try again.

        Args:
            block_ms: How long to wait for events, in milliseconds.
            stop: When it is set while the database is unavailable, the batch stays unacknowledged in the queue.

        Returns:
            The number of events in the batch.

        Raises:
            UnavailableError: The queue does not answer. Nothing is acknowledged.
        """
        events = await self._queue.read_events(GROUP, self._name, count=BATCH, block_ms=block_ms)
        self._oldest_ms = min((event.at_ms for event in events), default=None)
        waited = False
        while events:
            try:
                await asyncio.to_thread(self._write, events)
                break
            except UnavailableError as error:
                # The queue does not deliver these events to this consumer again before the consumer restarts.
                if not waited:
                    log.warning("the database is unavailable, %d events wait: %s", len(events), error.message)
                waited = True
                if stop is not None and stop.is_set():
                    return 0
                await self._clock.sleep(1.0)
        if waited:
            log.info("the database is available again")
        if events:
            forget = [event.id for event in events if event.kind in _FORGET]
            await self._queue.acknowledge(GROUP, events, forget=forget)
            self.recorded += len(events)
        return len(events)

    def _write(self, events: Sequence[Event]) -> None:
        with write(self._engine) as connection:
            record(connection, events, self._clock.now(), self._bounce)
        if self._metrics is not None:
            self._metrics.count(outcomes_in(events))
