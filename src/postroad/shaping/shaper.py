"""Records in the store which changes the replies of receivers cause. Every worker runs one shaper.

The gates follow the store. So any worker may receive a reply, restart, or lose the queue: the next controller of any
process sets the gates.
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
from postroad.dns.providers import OTHER_PROVIDERS
from postroad.errors import UnavailableError
from postroad.gates.controller import GateController
from postroad.queue import Queue
from postroad.shaping.config import Shaping
from postroad.shaping.decide import DECREASE_DELAY, change_by_rule, decrease, increase, is_expired
from postroad.shaping.describe import describe
from postroad.shaping.limits import LimitScope
from postroad.shaping.rules import PACE, ShapingRule, rule_for
from postroad.smtp.reply import Reply
from postroad.store import shaping as store
from postroad.store.engine import read, write
from postroad.store.shaping import ShapingChange

log = logging.getLogger(__name__)

POLL_SECONDS = 10.0
FINAL_SAVE_SECONDS = 5.0
RULE_PAUSE = timedelta(minutes=1)
"""Maximum time for which a worker ignores further replies to a rule whose change is open."""


class _RuleScope(NamedTuple):
    scope: LimitScope
    rule: str


@dataclass(kw_only=True)
class _Replies:
    """Replies of one kind since the last run. ``first``: the text of the first one."""

    rule: ShapingRule | None
    too_fast: bool
    first: str
    times: int = 0


class Shaper:
    """Collects the replies that one worker receives, and stores the changes that they cause.

    The gate controller applies the changes to the gates.
    """

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
        self._refusals: dict[_RuleScope, _Replies] = {}
        self._pauses: dict[str, ShapingChange] = {}
        self._ignore_until: dict[_RuleScope, datetime] = {}
        self._slowed: frozenset[str] = frozenset()
        self._accepted: set[str] = set()
        self._has_work = asyncio.Event()
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

    # -- reports of deliveries; they do not wait

    def refused(self, scope: LimitScope, reply: Reply) -> None:
        """Collect a refusal."""
        matched = rule_for(self._rules, scope.rule_provider, reply)
        too_fast = scope.rule_provider != OTHER_PROVIDERS and self._shaping.pace.matches(reply)
        if matched is None and not too_fast:
            return
        name, rule = matched or (PACE, None)
        key = _RuleScope(scope, name)
        ignore_until = self._ignore_until.get(key)
        if ignore_until is not None and self._clock.now() < ignore_until:
            return
        self._refusals.setdefault(key, _Replies(rule=rule, too_fast=too_fast, first=str(reply))).times += 1
        self._has_work.set()

    def accepted(self, scope: LimitScope) -> None:
        """Collect an acceptance, after which an adapted rate may grow."""
        if self._slowed and scope.gate in self._slowed:
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
            until_ms: End of the pause, Unix time in ms. None: until it is resumed.
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
        self._has_work.set()

    # -- storing changes

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Store changes in the background: once before the first delivery, and once more after the last."""
        await self.run_once()
        stop = asyncio.Event()
        task = asyncio.create_task(self._run(stop))
        try:
            yield
        finally:
            stop.set()
            self._has_work.set()
            # It may hold the store's lock, so it is only cancelled after a timeout.
            _, pending = await asyncio.wait([task], timeout=FINAL_SAVE_SECONDS)
            if pending:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                log.warning("the last replies of receivers were not stored")

    async def _run(self, stop: asyncio.Event) -> None:
        failing = False
        last = False
        while not last:
            await self._wait_for_work()
            last = stop.is_set()
            try:
                await self.run_once()
                failing = False
            except Exception as error:
                # Any error: without this loop no sender would be slowed down any more.
                fault = None if isinstance(error, UnavailableError) else error
                if not failing:
                    log.warning("shaping waits: %s", error, exc_info=fault)
                failing = True
                await self._clock.sleep(1.0)

    async def _wait_for_work(self) -> None:
        waits = [asyncio.create_task(self._has_work.wait()), asyncio.create_task(self._clock.sleep(POLL_SECONDS))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def run_once(self) -> None:
        """Store the changes that the collected replies cause, and correct the gates.

        Raises:
            UnavailableError: The database or the queue is unavailable. The next run stores refusals and pauses.
        """
        self._has_work.clear()
        refusals, self._refusals = self._refusals, {}
        pauses, self._pauses = self._pauses, {}
        accepted, self._accepted = self._accepted, set()
        try:
            if refusals or pauses or accepted:
                await asyncio.to_thread(self._save, refusals, pauses, accepted)
        except UnavailableError:
            self._refusals, self._pauses = refusals | self._refusals, pauses | self._pauses
            raise
        self._export(await asyncio.to_thread(self._read_open))
        lost = [change.gate for change in await self._gates.apply() if change.restores]
        if lost:
            log.warning("the queue had lost limits of %d gates, which are set again: %s", len(lost), ", ".join(lost))

    def _save(self, refusals: dict[_RuleScope, _Replies], pauses: dict[str, ShapingChange], accepted: set[str]) -> None:
        now = self._clock.now()
        with write(self._engine) as connection:
            store.acquire_lock(connection)
            for pause in pauses.values():
                at_gate = [change for change in store.open_changes(connection) if change.gate == pause.gate]
                self._add(connection, pause, replaces=[change for change in at_gate if is_expired(change, now)])
            for key, replies in refusals.items():
                self._decide(connection, key, replies, now)
            for change in store.open_changes(connection):
                if change.rule == PACE and change.gate in accepted:
                    self._grow(connection, change, now)

    def _decide(self, connection: sa.Connection, key: _RuleScope, replies: _Replies, now: datetime) -> None:
        scope, name = key
        by_rule = {change.rule: change for change in store.open_changes(connection) if change.gate == scope.gate}
        current = by_rule.get(name)
        if replies.rule is not None:
            if current is not None and not is_expired(current, now):
                self._ignore_until[key] = min(current.ends_at or now + RULE_PAUSE, now + RULE_PAUSE)
                return
            # The rule needs no higher count than its threshold.
            new = min(replies.times, replies.rule.per_hour)
            times = store.count_reply(connection, scope.gate, name, now, new)
            change = change_by_rule(name, replies.rule, scope, replies.first, times=times, now=now)
            if change is not None:
                self._add(connection, change, replaces=[current] if current is not None else [])
                return
        if replies.too_fast:
            last = by_rule.get(PACE)
            self._ignore_until[_RuleScope(scope, PACE)] = now + DECREASE_DELAY
            slower = decrease(scope, self._shaping.limits(scope), replies.first, last=last, now=now)
            if slower is not None:
                self._add(connection, slower, replaces=[last] if last is not None else [])

    def _add(self, connection: sa.Connection, change: ShapingChange, *, replaces: Sequence[ShapingChange] = ()) -> None:
        replaced = [other.id for other in replaces if other.id is not None]
        store.restore(connection, replaced, self._clock.now(), change.rule)
        if store.add_change(connection, change):
            log.warning("%s: %s, because of: %s (rule %s)", change.gate, describe(change), change.reply, change.rule)

    def _grow(self, connection: sa.Connection, change: ShapingChange, now: datetime) -> None:
        scope = LimitScope.of_gate(change.gate)
        grown = increase(change, self._shaping.limits(scope), now) if scope is not None else None
        if grown is not None and change.moved_at is not None:
            store.move_pace(connection, grown, change.moved_at)

    # -- metrics

    def _read_open(self) -> Sequence[ShapingChange]:
        with read(self._engine) as connection:
            return store.open_changes(connection)

    def _export(self, changes: Sequence[ShapingChange]) -> None:
        self._slowed = frozenset(change.gate for change in changes if change.rule == PACE)
        if self._open is not None:
            self._open.clear()
            for change in changes:
                self._open.labels(change.rule, change.gate).set(1)


async def resume(engine: sa.Engine, queue: Queue, gate: str, *, gates: GateController, by: str, now: datetime) -> int:
    """Close the changes of a gate that replies caused, and resume the gate.

    Args:
        engine: Database of the changes.
        queue: Queue of the gate.
        gate: Name of the gate.
        gates: Controller of the queue's gates. It sets the limits that apply without the changes.
        by: Who asks for it; stored with the changes.
        now: The time.

    Returns:
        Number of changes that were closed.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """

    def close() -> list[ShapingChange]:
        with write(engine) as connection:
            return store.restore_gate(connection, gate, now, by[:100])

    closed = await asyncio.to_thread(close)
    if any(not change.suspended for change in closed):
        await gates.apply(only=gate)
    await queue.resume_gate(gate)
    return len(closed)
