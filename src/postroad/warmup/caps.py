"""The caps as gates of the queue: what the store says holds on all workers at once, and again when it was lost.

The gates follow the store, and any worker sets them: see docs/adr/0009. A cap holds until another is written, also
when nobody decides a day; and a gate without a day of its own lets through the plan's first cap.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from math import isclose

import sqlalchemy as sa
from msgspec import Struct

from postroad.campaign.calendar import Window
from postroad.clock import Clock
from postroad.delivery.job import gate_key, warmup_gate
from postroad.dns.providers import OTHER, provider_table
from postroad.errors import UnavailableError
from postroad.queue import Gate, GateState, Queue, Quota, Rate
from postroad.settings import Settings, WarmupSettings
from postroad.store import warmup as store
from postroad.store.engine import read
from postroad.store.warmup import WarmupDayRow
from postroad.warmup.day import Pair, count_mail, day_of, midnight
from postroad.warmup.identity import Identity, identities, together
from postroad.warmup.plan import plan_for

log = logging.getLogger(__name__)

PREFIX = "warmup:"
LOOK_SECONDS = 10.0
GRACE = timedelta(minutes=1)
SPREAD = timedelta(hours=12)
"""A day's cap is spread over no more than this: the rate in an hour is a twelfth, or more where the hours are fewer."""


class Cap(Struct, frozen=True, kw_only=True):
    """What one identity may send to one provider today, and when it may not at all."""

    cap: int
    paused_until: datetime | None = None


def providers() -> list[str]:
    """Every mailbox provider that caps are set for; all others share the last one."""
    return [*sorted(provider_table().names), OTHER]


def least(caps: Iterable[Cap]) -> Cap:
    """Of the caps that apply to the same mail: the least, and the longest pause."""
    caps = list(caps)
    pauses = [cap.paused_until for cap in caps if cap.paused_until is not None]
    return Cap(cap=min(cap.cap for cap in caps), paused_until=max(pauses, default=None))


def opens_at(warmup: WarmupSettings, identity: Identity, cap: Cap, now: datetime) -> datetime:
    """Return when mail may leave: ``now``, or the later instant at which hours, start and pauses let it."""
    window = Window(start=warmup.opens, end=warmup.closes, days=frozenset(range(7)))
    after = max(now, cap.paused_until or now)
    if warmup.start is not None:
        after = max(after, midnight(warmup.start, identity.zone))
    return window.opens(after, identity.zone)


def spread_ms(warmup: WarmupSettings) -> int:
    """Time that a day's cap is spread over: the working hours, and 12 hours at the most."""
    day = date.min
    end = datetime.combine(day + timedelta(days=warmup.closes == time()), warmup.closes)
    return int(min(end - datetime.combine(day, warmup.opens), SPREAD).total_seconds() * 1000)


def cap_gate(name: str, identity: Identity, cap: Cap, *, used: int, now: datetime, shards: int = 1) -> Gate:
    """Return the gate of a cap, of which ``used`` is gone today.

    The quota outlives its day by one, so that nothing is unlimited while the next one is not set yet. Outside the
    hours, and in a pause, it is empty until they are over, and a little longer for the same reason.
    """
    opens = opens_at(identity.warmup, identity, cap, now)
    if opens > now:
        quota = Quota(left=0, until_ms=_ms(opens + GRACE))
    else:
        until = midnight(day_of(identity, now) + timedelta(days=2), identity.zone)
        quota = Quota(left=max(cap.cap - used, 0), until_ms=_ms(until))
    per_ms = spread_ms(identity.warmup)
    # A second's worth: at a large cap each lost moment would otherwise be lost for the day.
    burst = max(1 if gate_key(name) else shards, cap.cap * 1000 // per_ms)
    rate = Rate(count=cap.cap, per_ms=per_ms, burst=burst)
    return Gate(name=name, rate=rate, quota=quota)


def stands(gate: Gate, state: Gate | None) -> bool:
    """Tell whether a gate is as it should be. How much of a quota is left is the queue's to count."""
    if state is None or state.rate is None or state.quota is None or gate.rate is None or gate.quota is None:
        return False
    same_day = state.quota.until_ms == gate.quota.until_ms
    shut = gate.quota.left > 0 or state.quota.left == 0
    # A rate that is divided over shards comes back as the sum of its parts.
    same_rate = isclose(state.rate.count, gate.rate.count) and state.rate.per_ms == gate.rate.per_ms
    return same_rate and same_day and shut


def used_up(gate: Gate, state: Gate | None) -> int:
    """How much of today's cap the queue has let through, by what is left of it there. 0: it is another day's."""
    if state is None or state.rate is None or state.quota is None or gate.quota is None:
        return 0
    return max(round(state.rate.count) - state.quota.left, 0) if state.quota.until_ms == gate.quota.until_ms else 0


class CapKeeper:
    """Brings the gates of the queue to what the store says."""

    def __init__(self, settings: Settings, *, engine: sa.Engine, queue: Queue, clock: Clock) -> None:
        self._engine = engine
        self._queue = queue
        self._groups = together(identities(settings))
        self._clock = clock
        self._shards = settings.queue(queue.name).shards

    async def turn(self) -> int:
        """Set the gates that are not as they should be, and open those of nobody. Returns how many.

        Raises UnavailableError.
        """
        states = {state.gate.name: state for state in await self._queue.gates()}
        caps = await asyncio.to_thread(self._read_caps)
        now = self._clock.now()
        wrong = {
            name: identity
            for name, (identity, cap) in caps.items()
            if not stands(self._gate(name, identity, cap, 0, now), _gate_of(states, name))
        }
        if wrong:
            used = await asyncio.to_thread(self._count_used, {each.name: each for each in wrong.values()}, now)
            for name, identity in wrong.items():
                await self._set(name, identity, caps[name][1], used[name, identity.name], states, now)
        orphans = [
            name
            for name, state in states.items()
            if name.startswith(PREFIX) and name not in caps and (state.gate.rate or state.gate.quota)
        ]
        for name in orphans:
            await self._queue.set_gate(Gate(name=name))
        return len(wrong) + len(orphans)

    async def keep(self) -> None:
        """Keep the gates right for as long as this runs. Where nobody warms up, it ends at once."""
        failing = False
        while self._groups:
            await self._clock.sleep(LOOK_SECONDS)
            try:
                await asyncio.shield(self.turn())
                failing = False
            except UnavailableError as error:
                if not failing:
                    log.warning("caps of the warmup wait: %s", error.message)
                failing = True

    async def _set(
        self, name: str, identity: Identity, cap: Cap, counted: int, states: Mapping[str, GateState], now: datetime
    ) -> None:
        state = _gate_of(states, name)
        # The ledger may be behind the queue, and the queue may have forgotten: the larger number is nearer.
        used = max(counted, used_up(self._gate(name, identity, cap, 0, now), state))
        gate = self._gate(name, identity, cap, used, now)
        concurrency = state.concurrency if state is not None else None  # Somebody else's, and no matter of ours.
        await self._queue.set_gate(Gate(name=gate.name, rate=gate.rate, quota=gate.quota, concurrency=concurrency))

    def _gate(self, name: str, identity: Identity, cap: Cap, used: int, now: datetime) -> Gate:
        return cap_gate(name, identity, cap, used=used, now=now, shards=self._shards)

    def _read_caps(self) -> dict[str, tuple[Identity, Cap]]:
        """By the name of its gate: the cap that holds there, and the narrowest identity that it holds for."""
        names = [identity.name for group in self._groups for identity in group]
        with read(self._engine) as connection:
            newest = {(row.identity, row.provider): row for row in store.newest_days(connection, names)}
        return {
            warmup_gate(provider, group[0].name): (group[0], effective(group, provider, newest))
            for group in self._groups
            for provider in providers()
        }

    def _count_used(self, by_name: Mapping[str, Identity], now: datetime) -> dict[tuple[str, str], int]:
        """By gate and identity: attempts of today, as the ledger knows them."""
        used: dict[tuple[str, str], int] = defaultdict(int)
        with read(self._engine) as connection:
            for name, identity in by_name.items():
                today = day_of(identity, now)
                for provider, counts in count_mail(connection, identity, [today])[today].items():
                    used[warmup_gate(provider, name), name] += counts.attempts
        return used


def effective(group: Sequence[Identity], provider: str, newest: Mapping[Pair, WarmupDayRow]) -> Cap:
    """Return the cap that holds for identities with the same senders, by the newest day of each."""
    return least(_cap(identity, provider, newest.get((identity.name, provider))) for identity in group)


def _cap(identity: Identity, provider: str, row: WarmupDayRow | None) -> Cap:
    if row is None:
        return Cap(cap=plan_for(identity.warmup, provider).first)
    return Cap(cap=row.cap, paused_until=row.paused_until)


def _gate_of(states: Mapping[str, GateState], name: str) -> Gate | None:
    return states[name].gate if name in states else None


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
