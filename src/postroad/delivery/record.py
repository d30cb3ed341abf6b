"""The recorder: the queue's events become the ledger's rows, in batches, at least once and idempotently.

An event is acknowledged only when the ledger has it; then also the queue's memory of ended ids is no longer needed,
because the ledger itself refuses them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from postroad.clock import Clock
from postroad.delivery.metrics import DeliveryMetrics
from postroad.delivery.touch_fact import TouchFact, read_event
from postroad.errors import UnavailableError
from postroad.queue import Event, EventKind, Queue
from postroad.settings import BounceSettings
from postroad.store.bounce import over_soft_limit
from postroad.store.bulk import json_rows
from postroad.store.engine import write
from postroad.store.ledger import LIVE, TouchState
from postroad.store.outcome import DeliveryOutcome, TouchOutcome
from postroad.store.same_words import blame_sender_for
from postroad.store.suppression import SuppressionReason, suppress
from postroad.store.types import UtcDateTime, sql_time

log = logging.getLogger(__name__)

GROUP = "recorder"
BATCH = 1_000
LINGER_S = 0.1
"""How long events wait for company while there are few: a transaction costs as much as some thirty of them."""

_FORGET = (EventKind.DONE, EventKind.CANCELLED, EventKind.EXPIRED)

_EVERY = tuple(TouchState)
_FROM: dict[TouchState, tuple[TouchState, ...]] = {
    # That a server took it is a fact, whatever was believed before.
    TouchState.ACCEPTED: tuple(state for state in _EVERY if state is not TouchState.ACCEPTED),
    TouchState.BOUNCED: (*LIVE, TouchState.UNKNOWN),
    TouchState.DEAD: (*LIVE, TouchState.UNKNOWN),
    TouchState.UNKNOWN: LIVE,
    TouchState.SUPPRESSED: LIVE,
    TouchState.CANCELLED: LIVE,
    TouchState.EXPIRED: LIVE,
    TouchState.DEFERRED: (*LIVE, TouchState.UNKNOWN),
    TouchState.QUEUED: (TouchState.SENDING, TouchState.UNKNOWN),
}
"""From which states an event may move a touch to another."""


@lru_cache(maxsize=1024)
def _sql_instant(ms: int | None, dialect: str) -> str | None:
    # What was settled together has one instant, and the ledger has it twice.
    return None if ms is None else sql_time(datetime.fromtimestamp(ms / 1000, UTC), dialect)


def record(connection: sa.Connection, events: Sequence[Event], now: datetime, bounce: BounceSettings) -> int:
    """Put events into the ledger: a row for each new one, the state of its touch, suppressions. Returns how many."""
    facts = [fact for event in events if (fact := read_event(event)) is not None]
    kept = [fact for fact in facts if fact.noted]
    if kept:
        _insert_events(connection, kept)
    about_us = blame_sender_for(connection, {fact.words for fact in kept if fact.words}, now)
    ended = [fact for fact in kept if fact.state is TouchState.BOUNCED and fact.words not in about_us]
    for together in _rounds(facts):
        for state, of_state in _by_state(together).items():
            _move(connection, state, of_state)
    bounced = [fact.touch_id for fact in ended if fact.suppress]
    if bounced:
        addresses = _addresses(connection, bounced)
        suppress(connection, addresses, SuppressionReason.HARD_BOUNCE, "reply at delivery", now)
    softly = [fact.touch_id for fact in ended if not fact.suppress]
    if softly:
        # As for bounces that come back by mail: the same rows, the same limit.
        since = now - timedelta(milliseconds=bounce.soft_window_ms)
        addresses = over_soft_limit(connection, softly, since=since, limit=bounce.soft_limit)
        suppress(connection, addresses, SuppressionReason.SOFT_BOUNCE, "replies at delivery", now)
    return len(facts)


_OUTCOMES = {
    TouchState.ACCEPTED: DeliveryOutcome.ACCEPTED,
    TouchState.BOUNCED: DeliveryOutcome.BOUNCED,
    TouchState.DEFERRED: DeliveryOutcome.DEFERRED,
    TouchState.DEAD: DeliveryOutcome.DEAD,
    TouchState.UNKNOWN: DeliveryOutcome.UNKNOWN,
}


def outcomes_in(events: Sequence[Event]) -> list[TouchOutcome]:
    """Return the outcomes of attempts among events, for metrics."""
    facts = [fact for event in events if (fact := read_event(event)) is not None]
    return [TouchOutcome(fact.touch_id, _OUTCOMES[fact.state]) for fact in facts if fact.state in _OUTCOMES]


def _rounds(facts: Sequence[TouchFact]) -> list[list[TouchFact]]:
    """The first fact of each touch, then the second of those that have one, and so on: each may be of another claim."""
    if len({fact.touch_id for fact in facts}) == len(facts):
        return [list(facts)]
    rounds: list[list[TouchFact]] = []
    told: Counter[int] = Counter()
    for fact in facts:
        if told[fact.touch_id] == len(rounds):
            rounds.append([])
        rounds[told[fact.touch_id]].append(fact)
        told[fact.touch_id] += 1
    return rounds


def _by_state(facts: Sequence[TouchFact]) -> dict[TouchState, list[TouchFact]]:
    by_state: dict[TouchState, list[TouchFact]] = {}
    for fact in facts:
        by_state.setdefault(fact.state, []).append(fact)
    return by_state


def _insert_events(connection: sa.Connection, facts: Sequence[TouchFact]) -> None:
    dialect = connection.dialect.name
    rows = [
        {
            **msgspec.structs.asdict(fact),
            "at": _sql_instant(fact.at_ms, dialect),
            "next_at": _sql_instant(fact.next_ms, dialect),
        }
        for fact in facts
    ]
    columns: dict[str, TypeEngine[Any]] = {
        "uid": sa.Text(),
        "touch_id": sa.BigInteger(),
        "state": sa.Text(),
        "at": UtcDateTime(),
        "attempt": sa.Integer(),
        "reply_code": sa.Integer(),
        "enhanced_code": sa.Text(),
        "reply": sa.Text(),
        "cause": sa.Text(),
        "blame": sa.Text(),
        "next_at": UtcDateTime(),
        "words": sa.Text(),
    }
    names = ", ".join(columns)
    picks = ", ".join(f"new.{name}" for name in columns)
    item, parameters = json_rows(connection, "new", columns, rows)
    # A touch that is not in this ledger belongs to another one, which shares the queue by mistake.
    statement = sa.text(
        f"INSERT INTO delivery_event ({names}) SELECT {picks} FROM {item} "
        "WHERE EXISTS (SELECT 1 FROM touch WHERE touch.id = new.touch_id) ON CONFLICT (uid) DO NOTHING"
    )
    connection.execute(statement, parameters)


def _move(connection: sa.Connection, state: TouchState, facts: Sequence[TouchFact]) -> None:
    dialect = connection.dialect.name
    rows = [
        {
            "id": fact.touch_id,
            "claim": fact.claim,
            "reply": fact.reply or fact.cause,
            "next_at": _sql_instant(fact.next_ms, dialect),
            "settled_at": _sql_instant(fact.at_ms, dialect) if state.ended else None,
        }
        for fact in facts
    ]
    columns: dict[str, TypeEngine[Any]] = {
        "id": sa.BigInteger(),
        "claim": sa.BigInteger(),
        "reply": sa.Text(),
        "next_at": UtcDateTime(),
        "settled_at": UtcDateTime(),
    }
    item, parameters = json_rows(connection, "new", columns, rows)
    sources = ", ".join(f"'{source}'" for source in _FROM[state])
    # What any other claim came to says nothing of the one that is, or was, on the wire.
    current = "" if state.ended else "AND (touch.state IN ('planned', 'queued', 'deferred') OR touch.claim = new.claim)"
    # A mail that came back before its acceptance was recorded is the newer news.
    kept = "NOT (touch.state = 'bounced' AND EXISTS (SELECT 1 FROM bounce_effect WHERE touch_id = touch.id))"
    statement = sa.text(
        f"UPDATE touch SET state = '{state}', reply = COALESCE(new.reply, touch.reply), next_at = new.next_at, "
        f"settled_at = new.settled_at FROM {item} WHERE touch.id = new.id AND {kept} "
        f"AND touch.state IN ({sources}) {current}"
    )
    connection.execute(statement, parameters)


def _addresses(connection: sa.Connection, touch_ids: Sequence[int]) -> list[str]:
    item, parameters = json_rows(connection, "batch", {"id": sa.BigInteger()}, [{"id": i} for i in touch_ids])
    statement = sa.text(
        f"SELECT DISTINCT recipient.address FROM {item} JOIN touch ON touch.id = batch.id "
        "JOIN recipient ON recipient.id = touch.recipient_id"
    )
    return list(connection.execute(statement, parameters).scalars())


class Recorder:
    """Reads the events of a queue, and records them."""

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
        """``bounce``: how many soft bounces in a row suppress an address, and within what time.

        ``metrics``: counts what was recorded; None: it is not counted.
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
        """Age of the oldest event that was not recorded when this last looked; it grows while the database is away."""
        return 0.0 if self._oldest_ms is None else max(self._clock.now_ms() - self._oldest_ms, 0) / 1000

    async def run(self, stop: asyncio.Event) -> None:
        """Record until told to stop. While the database or the queue is away, wait, and lose nothing."""
        failures = 0
        while not stop.is_set():
            try:
                recorded = await self.record_next(block_ms=500, stop=stop)
                if 0 < recorded < BATCH:
                    await self._clock.sleep(LINGER_S)
                if failures:
                    log.info("recording again")
                failures = 0
            except UnavailableError as error:
                if failures == 0:
                    log.warning("recording waits: %s", error.message)
                failures += 1
                await self._clock.sleep(min(0.1 * 2**failures, 5.0))

    async def drain(self) -> int:
        """Record all that is there now. Returns how many events."""
        before = self.recorded
        while await self.record_next(block_ms=0):
            pass
        return self.recorded - before

    async def record_next(self, *, block_ms: int, stop: asyncio.Event | None = None) -> int:
        """Record one batch. Returns how many events it had. Raises UnavailableError; nothing is acknowledged then.

        While the database is away it waits with that batch alone: the rest stays in the queue's stream. Told to stop
        meanwhile, it leaves the batch there too, for its next life or for another recorder.
        """
        events = await self._queue.read_events(GROUP, self._name, count=BATCH, block_ms=block_ms)
        self._oldest_ms = min((event.at_ms for event in events), default=None)
        waited = False
        while events:
            try:
                await asyncio.to_thread(self._write, events)
                break
            except UnavailableError as error:
                # They stay ours: read once, they do not come again to this consumer before it starts anew.
                if not waited:
                    log.warning("the database is away, %d events wait: %s", len(events), error.message)
                waited = True
                if stop is not None and stop.is_set():
                    return 0
                await self._clock.sleep(1.0)
        if waited:
            log.info("the database is back")
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
