"""The caps as gates of the queue: what the store says holds on all workers at once, and again when it was lost.

The gates follow the store, and any worker sets them: see docs/adr/0009. A cap holds until another is written, also
when nobody decides a day; and a gate without a day of its own lets through the plan's first cap.

Mail to seed lists has a queue of its own, which counts for itself: its part of a cap is what is planned for the day,
and the rest of the cap is that of all other mail.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from math import ceil, isclose
from random import Random

import sqlalchemy as sa
from msgspec import Struct

from postroad.campaign.calendar import Window
from postroad.clock import Clock
from postroad.delivery.gate_name import GateKind, GateName, kind_of
from postroad.delivery.job import WARMUP_QUEUE
from postroad.dns.providers import OTHER, provider_table
from postroad.errors import UnavailableError
from postroad.queue import Gate, GateState, Queue, Quota, Rate
from postroad.settings import Settings, WarmupSettings
from postroad.store import warmup as store
from postroad.store.engine import read
from postroad.store.warmup import WarmupDayRow
from postroad.warmup.day import Pair, count_mail, count_seeds, day_of, midnight
from postroad.warmup.identity import Identity, identities, together
from postroad.warmup.plan import plan_for

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
GRACE = timedelta(minutes=1)
SPREAD = timedelta(hours=12)
"""A day's cap is spread over no more than this: the rate in an hour is a twelfth, or more where the hours are fewer."""
JITTER = 0.1
"""By how much an hour's pace may differ from the even one. A sender that is even to the second looks like a machine."""


class Cap(Struct, frozen=True, kw_only=True):
    """What one identity may send to one provider today, and when it may not at all."""

    cap: int
    paused_until: datetime | None = None
    of: int | None = None
    """Of a part that has its own instants: the whole cap, whose pace holds for it; None: its pace is its own."""


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
    return int(min(hours_of(warmup), SPREAD).total_seconds() * 1000)


def hours_of(warmup: WarmupSettings) -> timedelta:
    """How long the working hours of a day are, by the clock on the wall."""
    day = date.min
    end = datetime.combine(day + timedelta(days=warmup.closes == time()), warmup.closes)
    return end - datetime.combine(day, warmup.opens)


def pace_ms(name: str, identity: Identity, now: datetime) -> int:
    """Time that a day's cap is spread over at the pace of this hour: the even one of `spread_ms`, a little moved.

    By how much is drawn for each hour of a gate's day, and is the same for whoever draws. All hours together come to
    the even pace. The names of identities of the same senders are one gate's, so that they move together.
    """
    warmup, local = identity.warmup, now.astimezone(identity.zone)
    hours = ceil(hours_of(warmup) / timedelta(hours=1))
    hour = local.hour - warmup.opens.hour - (local.minute < warmup.opens.minute)
    rng = Random(f"{name} {local.date()}")  # noqa: S311  (it hides nothing)
    drawn = [rng.uniform(-JITTER, JITTER) for _ in range(hours)]
    moved = drawn[min(max(hour, 0), hours - 1)] - sum(drawn) / hours
    return round(spread_ms(warmup) / (1 + moved))


def cap_gate(name: str, identity: Identity, cap: Cap, *, used: int, now: datetime) -> Gate:
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
    # A second's worth: at a large cap each lost moment would otherwise be lost for the day.
    burst = max(1, cap.cap * 1000 // spread_ms(identity.warmup))
    # A rate of nothing is none; one that rounds to nothing is shut by its quota.
    count, per_ms = cap.cap or 0.4, pace_ms(name, identity, now)
    if cap.of:
        per_ms = max(round(per_ms * count / cap.of), 1)
    rate = Rate(count=count, per_ms=per_ms, burst=burst)
    return Gate(name=name, rate=rate, quota=quota)


def stands(gate: Gate, state: Gate | None) -> bool:
    """Tell whether a gate is as it should be, but for its pace. How much of a quota is left is the queue's to count."""
    if state is None or state.rate is None or state.quota is None or gate.rate is None or gate.quota is None:
        return False
    same_day = state.quota.until_ms == gate.quota.until_ms
    shut = gate.quota.left > 0 or state.quota.left == 0
    # The server stores a rate as a decimal number.
    return isclose(state.rate.count, gate.rate.count) and same_day and shut


def other_pace(gate: Gate, state: Gate | None) -> Rate | None:
    """Return the rate to set where a gate stands, and another hour has another pace."""
    if not stands(gate, state) or state is None or state.rate is None or gate.rate is None:
        return None
    return gate.rate if state.rate.per_ms != gate.rate.per_ms else None


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
        self._seeds = queue.name == WARMUP_QUEUE

    async def turn(self) -> int:
        """Set the gates that are not as they should be, and open those of nobody. Returns how many.

        The pace of another hour is set too, and is no gate that was wrong. Raises UnavailableError.
        """
        states = {state.gate.name: state for state in await self._queue.gates()}
        now = self._clock.now()
        caps = await asyncio.to_thread(self._read_caps, now)
        wanted = {name: self._gate(name, identity, cap, 0, now) for name, (identity, cap) in caps.items()}
        wrong = {name: caps[name][0] for name, gate in wanted.items() if not stands(gate, _gate_of(states, name))}
        for name, gate in wanted.items():
            rate = other_pace(gate, _gate_of(states, name))
            if rate is not None:
                await self._queue.update_gate(name, rate=rate)
        if wrong:
            used = await asyncio.to_thread(self._count_used, {each.name: each for each in wrong.values()}, now)
            for name, identity in wrong.items():
                await self._set(name, identity, caps[name][1], used[name, identity.name], states, now)
        orphans = [
            name
            for name, state in states.items()
            if kind_of(name) is GateKind.WARMUP and name not in caps and (state.gate.rate or state.gate.quota)
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
        await self._queue.update_gate(gate.name, rate=gate.rate, quota=gate.quota)

    def _gate(self, name: str, identity: Identity, cap: Cap, used: int, now: datetime) -> Gate:
        return cap_gate(name, identity, cap, used=used, now=now)

    def _read_caps(self, now: datetime) -> dict[str, tuple[Identity, Cap]]:
        """By the name of its gate: this queue's part of the cap, and the narrowest identity that it holds for."""
        names = [identity.name for group in self._groups for identity in group]
        with read(self._engine) as connection:
            newest = {(row.identity, row.provider): row for row in store.newest_days(connection, names)}
            seeds = {g[0].name: count_seeds(connection, g[0], day_of(g[0], now)) for g in self._groups}
        caps: dict[str, tuple[Identity, Cap]] = {}
        for group in self._groups:
            for provider in providers():
                planned = seeds[group[0].name].get(provider, 0)
                cap = part_of(effective(group, provider, newest), planned, to_seeds=self._seeds)
                caps[str(GateName.warmup(provider, group[0].name))] = group[0], cap
        return caps

    def _count_used(self, by_name: Mapping[str, Identity], now: datetime) -> dict[tuple[str, str], int]:
        """By gate and identity: attempts of today, as the ledger knows them."""
        used: dict[tuple[str, str], int] = defaultdict(int)
        with read(self._engine) as connection:
            for name, identity in by_name.items():
                today = day_of(identity, now)
                counted = count_mail(connection, identity, [today], seeds=self._seeds)[today]
                for provider, counts in counted.items():
                    used[str(GateName.warmup(provider, name)), name] += counts.attempts
        return used


def part_of(cap: Cap, seeds: int, *, to_seeds: bool) -> Cap:
    """Return the part of a cap that is for mail to seed lists, of which so much is planned; or the rest of it."""
    part = min(seeds, cap.cap)
    if to_seeds:
        return Cap(cap=part, paused_until=cap.paused_until, of=cap.cap)
    return Cap(cap=cap.cap - part, paused_until=cap.paused_until)


async def keep_caps(settings: Settings, *, engine: sa.Engine, queues: Iterable[Queue], clock: Clock) -> int:
    """Bring the gates of several queues to what the store says. Returns how many were set. Raises UnavailableError."""
    return sum([await CapKeeper(settings, engine=engine, queue=queue, clock=clock).turn() for queue in queues])


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
