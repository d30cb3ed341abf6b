"""What warmup contributes to gates: the caps that the store says, on all workers at once, and after a queue was lost.

Any process may set the gates: see docs/adr/0009. A cap holds until another is written, also when nobody decides a day;
and a gate without a day of its own lets through the plan's first cap.

Mail to seed lists has a queue of its own, which counts for itself: its part of a cap is what is planned for the day,
and the rest of the cap is that of all other mail.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from math import ceil
from random import Random

import sqlalchemy as sa
from msgspec import Struct

from postroad.campaign.calendar import Window
from postroad.clock import Clock
from postroad.delivery.job import WARMUP_QUEUE
from postroad.dns.providers import OTHER_PROVIDERS, provider_table
from postroad.gates.name import GateName
from postroad.gates.plan import Contribution, GateLimit, SourceTraits
from postroad.queue import Gate, GateState, Quota, Rate
from postroad.settings import Settings, WarmupSettings
from postroad.store import warmup as store
from postroad.store.engine import read
from postroad.store.warmup import WarmupDayRow
from postroad.warmup.day import Pair, count_mail, count_seeds, day_of, midnight
from postroad.warmup.identity import WarmingIdentity, identities, together
from postroad.warmup.plan import plan_for

WARMUP = "warmup"
"""Mark of gates that are set by warmup, and not of its own kind."""
CAPPED = frozenset({GateLimit.RATE, GateLimit.QUOTA})
"""Limits that warmup sets."""
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
    return [*sorted(provider_table().names), OTHER_PROVIDERS]


def least(caps: Iterable[Cap]) -> Cap:
    """Of the caps that apply to the same mail: the least, and the longest pause."""
    caps = list(caps)
    pauses = [cap.paused_until for cap in caps if cap.paused_until is not None]
    return Cap(cap=min(cap.cap for cap in caps), paused_until=max(pauses, default=None))


def opens_at(warmup: WarmupSettings, identity: WarmingIdentity, cap: Cap, now: datetime) -> datetime:
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


def pace_ms(name: str, identity: WarmingIdentity, now: datetime) -> int:
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


def cap_rate(name: str, identity: WarmingIdentity, cap: Cap, now: datetime) -> Rate:
    """Return the rate of a cap at the pace of this hour."""
    # A second's worth: at a large cap each lost moment would otherwise be lost for the day.
    burst = max(1, cap.cap * 1000 // spread_ms(identity.warmup))
    # A rate of nothing is none; one that rounds to nothing is shut by its quota.
    count, per_ms = cap.cap or 0.4, pace_ms(name, identity, now)
    if cap.of:
        per_ms = max(round(per_ms * count / cap.of), 1)
    return Rate(count=count, per_ms=per_ms, burst=burst)


def cap_quota(identity: WarmingIdentity, cap: Cap, *, used: int, now: datetime) -> Quota:
    """Return the quota of a cap, of which ``used`` is gone today.

    The quota outlives its day by one, so that nothing is unlimited while the next one is not set yet. Outside the
    hours, and in a pause, it is empty until they are over, and a little longer for the same reason.
    """
    opens = opens_at(identity.warmup, identity, cap, now)
    if opens > now:
        return Quota(left=0, until_ms=_ms(opens + GRACE), size=cap.cap)
    until = midnight(day_of(identity, now) + timedelta(days=2), identity.zone)
    return Quota(left=max(cap.cap - used, 0), until_ms=_ms(until), size=cap.cap)


def counts_down(wanted: Quota, current: Gate) -> bool:
    """Return whether the quota of a gate is that of today's cap. How much is left of it is the queue's to count.

    Args:
        wanted: The quota, of which nothing is used.
        current: The gate as the queue has it.
    """
    if current.quota is None or current.quota.until_ms != wanted.until_ms or _size_of(current) != wanted.size:
        return False
    return wanted.left > 0 or current.quota.left == 0


def used_up(wanted: Quota, current: Gate) -> int:
    """Return how much of today's cap the queue has let through. 0: its quota is another day's."""
    size = _size_of(current)
    if current.quota is None or size is None or current.quota.until_ms != wanted.until_ms:
        return 0
    return max(size - current.quota.left, 0)


def _size_of(gate: Gate) -> int | None:
    """Return the cap that a gate's quota is of. The version before kept it as the count of its rate only."""
    if gate.quota is not None and gate.quota.size is not None:
        return gate.quota.size
    return None if gate.rate is None else round(gate.rate.count)


class WarmupCaps:
    """Contributes the caps that the store says: a rate and a quota for each gate."""

    traits = SourceTraits(name=WARMUP, limits=CAPPED)

    def __init__(self, settings: Settings, *, engine: sa.Engine, queue: str, clock: Clock) -> None:
        """Make the source.

        Args:
            settings: Settings, whose senders may warm up.
            engine: Database of the caps.
            queue: Name of the queue: that of mail to seed lists has its own part of each cap.
            clock: Time that days and hours go by.
        """
        self._engine = engine
        self._groups = together(identities(settings))
        self._clock = clock
        self._seeds = queue == WARMUP_QUEUE

    async def contribute(self, states: Mapping[str, GateState]) -> list[Contribution]:
        """Return the contribution to each gate of an identity that warms up. Raises UnavailableError."""
        if not self._groups:
            return []
        now = self._clock.now()
        caps = await asyncio.to_thread(self._read_caps, now)
        quotas = await self._quotas(caps, states, now)
        return [
            Contribution(
                source=WARMUP, gate=name, rate=cap_rate(name, identity, cap, now), quota=quotas[name], decides=CAPPED
            )
            for name, (identity, cap) in caps.items()
        ]

    async def _quotas(
        self, caps: Mapping[str, tuple[WarmingIdentity, Cap]], states: Mapping[str, GateState], now: datetime
    ) -> dict[str, Quota]:
        """Return the quota of each gate: the one that it has, or a new one, less what was sent today."""
        quotas: dict[str, Quota] = {}
        new: dict[str, Quota] = {}
        for name, (identity, cap) in caps.items():
            unused = cap_quota(identity, cap, used=0, now=now)
            gate = states[name].gate if name in states else Gate(name=name)
            if gate.quota is not None and counts_down(unused, gate):
                quotas[name] = gate.quota
            else:
                new[name] = unused
        # This reads all mail of the day, so only where it is needed.
        counted = await asyncio.to_thread(self._count_used, {caps[name][0].name: caps[name][0] for name in new}, now)
        for name, unused in new.items():
            identity, cap = caps[name]
            # The ledger may be behind the queue, and the queue may have forgotten: the larger number is nearer.
            used = max(counted[name], used_up(unused, states[name].gate) if name in states else 0)
            quotas[name] = cap_quota(identity, cap, used=used, now=now)
        return quotas

    def _read_caps(self, now: datetime) -> dict[str, tuple[WarmingIdentity, Cap]]:
        """By the name of its gate: this queue's part of the cap, and the narrowest identity that it holds for."""
        names = [identity.name for group in self._groups for identity in group]
        with read(self._engine) as connection:
            newest = {(row.identity, row.provider): row for row in store.newest_days(connection, names)}
            seeds = {g[0].name: count_seeds(connection, g[0], day_of(g[0], now)) for g in self._groups}
        caps: dict[str, tuple[WarmingIdentity, Cap]] = {}
        for group in self._groups:
            for provider in providers():
                planned = seeds[group[0].name].get(provider, 0)
                cap = part_of(effective(group, provider, newest), planned, to_seeds=self._seeds)
                caps[str(GateName.warmup(provider, group[0].name))] = group[0], cap
        return caps

    def _count_used(self, by_name: Mapping[str, WarmingIdentity], now: datetime) -> dict[str, int]:
        """By gate: attempts of today, as the ledger knows them."""
        used: dict[str, int] = defaultdict(int)
        if not by_name:
            return used
        with read(self._engine) as connection:
            for name, identity in by_name.items():
                today = day_of(identity, now)
                counted = count_mail(connection, identity, [today], seeds=self._seeds)[today]
                for provider, counts in counted.items():
                    used[str(GateName.warmup(provider, name))] += counts.attempts
        return used


def part_of(cap: Cap, seeds: int, *, to_seeds: bool) -> Cap:
    """Return the part of a cap that is for mail to seed lists, of which so much is planned; or the rest of it."""
    part = min(seeds, cap.cap)
    if to_seeds:
        return Cap(cap=part, paused_until=cap.paused_until, of=cap.cap)
    return Cap(cap=cap.cap - part, paused_until=cap.paused_until)


def effective(group: Sequence[WarmingIdentity], provider: str, newest: Mapping[Pair, WarmupDayRow]) -> Cap:
    """Return the cap that holds for identities with the same senders, by the newest day of each."""
    return least(_cap(identity, provider, newest.get((identity.name, provider))) for identity in group)


def _cap(identity: WarmingIdentity, provider: str, row: WarmupDayRow | None) -> Cap:
    if row is None:
        return Cap(cap=plan_for(identity.warmup, provider).first)
    return Cap(cap=row.cap, paused_until=row.paused_until)


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
