"""Hear what receivers say, and record what follows from it in the store: every worker does, and all do the same.

The store says what holds, and the gates follow it. So it does not matter which worker heard a reply, who restarts, or
that the queue was lost: the next controller of any process sets the gates.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Gauge

from postroad.clock import Clock
from postroad.errors import UnavailableError
from postroad.gates.controller import GateController
from postroad.queue import Queue
from postroad.shaping.config import Shaping
from postroad.shaping.decide import SETTLE, by_rule, decrease, increase, is_expired
from postroad.shaping.describe import words
from postroad.shaping.limits import TAIL, LimitScope
from postroad.shaping.rules import PACE, ShapingRule, rule_for
from postroad.smtp.reply import Reply
from postroad.store import shaping as store
from postroad.store.engine import read, write
from postroad.store.shaping import ShapingChange

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
LAST_WORDS_SECONDS = 5.0
HELD_ELSEWHERE = timedelta(minutes=1)
"""A rule that has acted is not asked again for this long by a worker that knows so."""


class _Subject(NamedTuple):
    scope: LimitScope
    rule: str


@dataclass(kw_only=True)
class _Heard:
    """What was said since the last turn, and how often."""

    rule: ShapingRule | None
    too_fast: bool
    said: str
    times: int = 0


class Shaper:
    """What one worker hears, and the changes that follow from it. It has the gates set by their controller."""

    def __init__(
        self,
        *,
        engine: sa.Engine,
        gates: GateController,
        shaping: Shaping,
        clock: Clock,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._engine = engine
        self._gates = gates
        self._shaping = shaping
        self._clock = clock
        self._rules = tuple(shaping.rule.items())
        self._heard: dict[_Subject, _Heard] = {}
        self._pauses: dict[str, ShapingChange] = {}
        self._ignore_until: dict[_Subject, datetime] = {}
        self._paced: frozenset[str] = frozenset()
        self._accepted: set[str] = set()
        self._news = asyncio.Event()
        self._open = (
            Gauge(
                "postroad_shaping_open",
                "Changes that slow a sender down now, by rule",
                ["rule", "gate"],
                registry=registry,
            )
            if registry is not None
            else None
        )

    # -- what a delivery tells; none of it waits

    def refused(self, scope: LimitScope, reply: Reply) -> None:
        """Take note of a reply that refused."""
        found = rule_for(self._rules, scope.known_as, reply)
        too_fast = scope.known_as != TAIL and self._shaping.pace.holds(reply)
        if found is None and not too_fast:
            return
        name, rule = found or (PACE, None)
        subject = _Subject(scope, name)
        deaf_until = self._ignore_until.get(subject)
        if deaf_until is not None and self._clock.now() < deaf_until:
            return
        heard = self._heard.setdefault(subject, _Heard(rule=rule, too_fast=too_fast, said=str(reply)))
        heard.times += 1
        self._news.set()

    def accepted(self, scope: LimitScope) -> None:
        """Take note that mail was accepted: what was slowed down may grow."""
        if self._paced and scope.gate in self._paced:
            self._accepted.add(scope.gate)

    def paused(
        self, gate: str, scope: LimitScope, reply: str, *, cause: str, everywhere: bool, until_ms: int | None
    ) -> None:
        """Record that a gate was paused, because a receiver refused the sender.

        Args:
            gate: Name of the gate.
            scope: The sender and the receiver.
            reply: What the receiver replied.
            cause: Name of the cause.
            everywhere: The sender is paused at every receiver.
            until_ms: End of the pause, in ms since 1970. None: until it is resumed.
        """
        self._pauses[gate] = ShapingChange(
            gate=gate,
            rule=cause,
            sender=scope.sender,
            provider=None if everywhere else scope.provider,
            reply=reply[:500],
            at=self._clock.now(),
            ends_at=None if until_ms is None else datetime.fromtimestamp(until_ms / 1000, UTC),
            suspended=True,
        )
        self._news.set()

    # -- what is done about it

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[None]:
        """Act for as long as this is open: once before anything is delivered, and on what was heard last as well."""
        await self.turn()
        stop = asyncio.Event()
        task = asyncio.create_task(self._act(stop))
        try:
            yield
        finally:
            stop.set()
            self._news.set()
            # Not cancelled while it may hold the store's lock, unless it takes too long.
            _, late = await asyncio.wait([task], timeout=LAST_WORDS_SECONDS)
            if late:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                log.warning("what receivers said last is not kept")

    async def _act(self, stop: asyncio.Event) -> None:
        failing = False
        last = False
        while not last:
            await self._next_look()
            last = stop.is_set()
            try:
                await self.turn()
                failing = False
            except Exception as error:
                # Whatever it is: without this, nobody would be slowed down any more.
                fault = None if isinstance(error, UnavailableError) else error
                if not failing:
                    log.warning("shaping waits: %s", error, exc_info=fault)
                failing = True
                await self._clock.sleep(1.0)

    async def _next_look(self) -> None:
        waits = [asyncio.create_task(self._news.wait()), asyncio.create_task(self._clock.sleep(LOOK_SECONDS))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def turn(self) -> None:
        """Record what was heard, and set the gates that are not as they should be.

        Raises UnavailableError; what was heard is kept for the next turn.
        """
        self._news.clear()
        heard, self._heard = self._heard, {}
        pauses, self._pauses = self._pauses, {}
        accepted, self._accepted = self._accepted, set()
        try:
            if heard or pauses or accepted:
                await asyncio.to_thread(self._keep, heard, pauses, accepted)
        except UnavailableError:
            self._heard, self._pauses = heard | self._heard, pauses | self._pauses
            raise
        self._show(await asyncio.to_thread(self._read_open))
        lost = [change.gate for change in await self._gates.apply() if change.restores]
        if lost:
            log.warning("the queue had lost limits of %d gates; they are set again: %s", len(lost), ", ".join(lost))

    def _keep(self, heard: dict[_Subject, _Heard], pauses: dict[str, ShapingChange], accepted: set[str]) -> None:
        now = self._clock.now()
        with write(self._engine) as connection:
            store.one_at_a_time(connection)
            for pause in pauses.values():
                before = [change for change in store.open_changes(connection) if change.gate == pause.gate]
                self._add(connection, pause, instead_of=[change for change in before if is_expired(change, now)])
            for subject, what in heard.items():
                self._decide(connection, subject, what, now)
            for change in store.open_changes(connection):
                if change.rule == PACE and change.gate in accepted:
                    self._grow(connection, change, now)

    def _decide(self, connection: sa.Connection, subject: _Subject, what: _Heard, now: datetime) -> None:
        scope, name = subject
        gate_changes = {change.rule: change for change in store.open_changes(connection) if change.gate == scope.gate}
        acting = gate_changes.get(name)
        if what.rule is not None:
            if acting is not None and not is_expired(acting, now):
                self._ignore_until[subject] = min(acting.ends_at or now + HELD_ELSEWHERE, now + HELD_ELSEWHERE)
                return
            # More than the rule asks for would tell it nothing.
            said = min(what.times, what.rule.per_hour)
            times = store.count_reply(connection, scope.gate, name, now, said)
            change = by_rule(name, what.rule, scope, what.said, times=times, now=now)
            if change is not None:
                self._add(connection, change, instead_of=[acting] if acting is not None else [])
                return
        if what.too_fast:
            last = gate_changes.get(PACE)
            self._ignore_until[_Subject(scope, PACE)] = now + SETTLE
            pace = decrease(scope, self._shaping.limits(scope), what.said, last=last, now=now)
            if pace is not None:
                self._add(connection, pace, instead_of=[last] if last is not None else [])

    def _add(
        self, connection: sa.Connection, change: ShapingChange, *, instead_of: Sequence[ShapingChange] = ()
    ) -> None:
        store.restore(connection, [_id(other) for other in instead_of], self._clock.now(), change.rule)
        if store.add_change(connection, change):
            log.warning("%s: %s, because of: %s (rule %s)", change.gate, words(change), change.reply, change.rule)

    def _grow(self, connection: sa.Connection, change: ShapingChange, now: datetime) -> None:
        scope = LimitScope.of_gate(change.gate)
        grown = increase(change, self._shaping.limits(scope), now) if scope is not None else None
        if grown is not None and change.moved_at is not None:
            store.move_pace(connection, grown, change.moved_at)

    # -- what is shown

    def _read_open(self) -> Sequence[ShapingChange]:
        with read(self._engine) as connection:
            return store.open_changes(connection)

    def _show(self, changes: Sequence[ShapingChange]) -> None:
        self._paced = frozenset(change.gate for change in changes if change.rule == PACE)
        if self._open is not None:
            self._open.clear()
            for change in changes:
                self._open.labels(change.rule, change.gate).set(1)


async def resume(engine: sa.Engine, queue: Queue, gate: str, *, gates: GateController, by: str, now: datetime) -> int:
    """Undo what a receiver's reply had set at a gate, and resume it.

    Args:
        engine: Database of the changes.
        queue: Queue of the gate.
        gate: Name of the gate.
        gates: Controller of the queue's gates. It sets the limits that hold without the changes.
        by: Who asks for it.
        now: Time that the changes end at.

    Returns:
        Number of changes that were closed.

    Raises:
        UnavailableError: The database or the queue does not reply.
    """

    def close() -> list[ShapingChange]:
        with write(engine) as connection:
            return store.restore_gate(connection, gate, now, by[:100])

    closed = await asyncio.to_thread(close)
    if any(not change.suspended for change in closed):
        await gates.apply(only=gate)
    await queue.resume_gate(gate)
    return len(closed)


def _id(change: ShapingChange) -> int:
    assert change.id is not None  # noqa: S101  (read from its table)
    return change.id
