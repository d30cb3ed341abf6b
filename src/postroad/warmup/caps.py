"""Keeps the warmup gates equal to the caps in the database, on all workers and after a queue loss.

Any process may set the gates: see docs/adr/0009. A cap holds until another one is written, even if no decision is
written for a day. A gate without a row in the database gets the plan's first cap.

Mail to seed lists has a separate queue with separate counters. Its part of a cap is what is planned for the day; all
other mail gets the rest.
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
from postroad.warmup.identity import WarmingIdentity, group_by_senders, identities
from postroad.warmup.plan import plan_for

WARMUP = "warmup"
"""Name of warmup as a source of gate limits."""
CAPPED = frozenset({GateLimit.RATE, GateLimit.QUOTA})
"""Limits that warmup sets."""
GRACE = timedelta(minutes=1)
SPREAD = timedelta(hours=12)
"""Longest time that a day's cap is spread over. With fewer working hours, the rate is higher."""
JITTER = 0.1
"""Relative difference between an hour's rate and the even one, about. A perfectly even sender looks automated."""


class Cap(Struct, frozen=True, kw_only=True):
    """Messages that one identity may send to one provider today, and the end of a pause."""

    cap: int
    paused_until: datetime | None = None
    whole: int | None = None
    """For the part of a cap that seed mail uses: the whole cap, which sets the rate. None: ``cap`` sets it."""


def providers() -> list[str]:
    """Return every mailbox provider that has caps. All other providers share the last one."""
    return [*sorted(provider_table().names), OTHER_PROVIDERS]


def combine_caps(caps: Iterable[Cap]) -> Cap:
    """Combine the caps that apply to the same mail: the smallest cap and the longest pause."""
    caps = list(caps)
    pauses = [cap.paused_until for cap in caps if cap.paused_until is not None]
    return Cap(cap=min(cap.cap for cap in caps), paused_until=max(pauses, default=None))


def opens_at(warmup: WarmupSettings, identity: WarmingIdentity, cap: Cap, now: datetime) -> datetime:
    """Return when mail may leave: ``now``, or the first later time that working hours, start day and pause allow."""
    window = Window(start=warmup.opens, end=warmup.closes, days=frozenset(range(7)))
    after = max(now, cap.paused_until or now)
    if warmup.start is not None:
        after = max(after, midnight(warmup.start, identity.zone))
    return window.opens(after, identity.zone)


def spread_ms(warmup: WarmupSettings) -> int:
    """Return the time that a day's cap is spread over, in ms: the working hours, at most 12 hours."""
    return int(min(hours_of(warmup), SPREAD).total_seconds() * 1000)


def hours_of(warmup: WarmupSettings) -> timedelta:
    """Return the length of a day's working hours in wall-clock time."""
    day = date.min
    end = datetime.combine(day + timedelta(days=warmup.closes == time()), warmup.closes)
    return end - datetime.combine(day, warmup.opens)


def pace_ms(name: str, identity: WarmingIdentity, now: datetime) -> int:
    """Return the time that a day's cap is spread over at this hour's rate, in ms: `spread_ms` with some jitter.

    The jitter of each hour is drawn from a generator that is seeded with the gate's name and the day, so every process
    draws the same values. Over all hours of a day the jitter adds up to zero.

    Args:
        name: Name of the identity whose gate it is.
        identity: The identity, with its zone and working hours.
        now: The time, which selects day and hour.
    """
    warmup, local = identity.warmup, now.astimezone(identity.zone)
    hours = ceil(hours_of(warmup) / timedelta(hours=1))
    hour = local.hour - warmup.opens.hour - (local.minute < warmup.opens.minute)
    rng = Random(f"{name} {local.date()}")  # noqa: S311  (it hides nothing)
    drawn = [rng.uniform(-JITTER, JITTER) for _ in range(hours)]
    jitter = drawn[min(max(hour, 0), hours - 1)] - sum(drawn) / hours
    return round(spread_ms(warmup) / (1 + jitter))


def cap_rate(name: str, identity: WarmingIdentity, cap: Cap, now: datetime) -> Rate:
    """Return the rate of a cap in the current hour."""
    # One second's worth of messages. Without it, a large cap could not catch up after a short stall.
    burst = max(1, cap.cap * 1000 // spread_ms(identity.warmup))
    # A rate of 0 would mean no limit. The empty quota of a zero cap blocks the gate instead.
    count, per_ms = cap.cap or 0.4, pace_ms(name, identity, now)
    if cap.whole:
        per_ms = max(round(per_ms * count / cap.whole), 1)
    return Rate(count=count, per_ms=per_ms, burst=burst)


def cap_quota(identity: WarmingIdentity, cap: Cap, *, used: int, now: datetime) -> Quota:
    """Return the quota of a cap after ``used`` messages of today.

    The quota expires one day after its own day, so that the gate is never unlimited before the next quota is set.
    Outside the working hours and during a pause it is empty until they end, plus `GRACE` for the same reason.

    Args:
        identity: The identity that has the cap.
        cap: The cap.
        used: Messages of today that count against the cap.
        now: The time.
    """
    opens = opens_at(identity.warmup, identity, cap, now)
    if opens > now:
        return Quota(left=0, until_ms=_ms(opens + GRACE), size=cap.cap)
    until = midnight(day_of(identity, now) + timedelta(days=2), identity.zone)
    return Quota(left=max(cap.cap - used, 0), until_ms=_ms(until), size=cap.cap)


def quota_matches(wanted: Quota, current: Gate) -> bool:
    """Return whether a gate has the quota of today's cap, ignoring how much of it is left.

    Args:
        wanted: The quota with nothing used.
        current: The gate in the queue.
    """
    if current.quota is None or current.quota.until_ms != wanted.until_ms or _size_of(current) != wanted.size:
        return False
    return wanted.left > 0 or current.quota.left == 0


def used_of_cap(wanted: Quota, current: Gate) -> int:
    """Return how many messages of today's cap the queue has sent. Returns 0 if its quota is of another day."""
    size = _size_of(current)
    if current.quota is None or size is None or current.quota.until_ms != wanted.until_ms:
        return 0
    return max(size - current.quota.left, 0)


def _size_of(gate: Gate) -> int | None:
    """Return the cap of a gate's quota. The previous version stored it only as the count of the rate."""
    if gate.quota is not None and gate.quota.size is not None:
        return gate.quota.size
    return None if gate.rate is None else round(gate.rate.count)


class WarmupCaps:
    """Contributes a rate and a quota to each warmup gate, from the caps in the database."""

    traits = SourceTraits(name=WARMUP, limits=CAPPED)

    def __init__(self, settings: Settings, *, engine: sa.Engine, queue: str, clock: Clock) -> None:
        """Prepare the source.

        Args:
            settings: Settings with the senders.
            engine: Database of the caps.
            queue: Name of the queue. The queue of mail to seed lists has a part of each cap.
            clock: Clock that days and hours follow.
        """
        self._engine = engine
        self._groups = group_by_senders(identities(settings))
        self._clock = clock
        self._seeds = queue == WARMUP_QUEUE

    async def contribute(self, states: Mapping[str, GateState]) -> list[Contribution]:
        """Return the contribution to each gate of an identity that warms up.

        Returns:
            One contribution for each identity and provider.

        Raises:
            UnavailableError: The database is unreachable.
        """
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
        """Return the quota of each gate: the current one, or a new one minus what was sent today."""
        quotas: dict[str, Quota] = {}
        new: dict[str, Quota] = {}
        for name, (identity, cap) in caps.items():
            unused = cap_quota(identity, cap, used=0, now=now)
            gate = states[name].gate if name in states else Gate(name=name)
            if gate.quota is not None and quota_matches(unused, gate):
                quotas[name] = gate.quota
            else:
                new[name] = unused
        # This counts all mail of the day, so only gates without a matching quota are counted.
        counted = await asyncio.to_thread(self._count_used, {caps[name][0].name: caps[name][0] for name in new}, now)
        for name, unused in new.items():
            identity, cap = caps[name]
            # The ledger may lag the queue, and the queue may have lost its counter. The larger number is more accurate.
            used = max(counted[name], used_of_cap(unused, states[name].gate) if name in states else 0)
            quotas[name] = cap_quota(identity, cap, used=used, now=now)
        return quotas

    def _read_caps(self, now: datetime) -> dict[str, tuple[WarmingIdentity, Cap]]:
        """Return this queue's part of each cap and the narrowest identity that it applies to, by gate name."""
        names = [identity.name for group in self._groups for identity in group]
        with read(self._engine) as connection:
            newest = {(row.identity, row.provider): row for row in store.newest_days(connection, names)}
            seeds = {g[0].name: count_seeds(connection, g[0], day_of(g[0], now)) for g in self._groups}
        caps: dict[str, tuple[WarmingIdentity, Cap]] = {}
        for group in self._groups:
            for provider in providers():
                planned = seeds[group[0].name].get(provider, 0)
                cap = split_cap(effective_cap(group, provider, newest), planned, to_seeds=self._seeds)
                caps[str(GateName.warmup(provider, group[0].name))] = group[0], cap
        return caps

    def _count_used(self, by_name: Mapping[str, WarmingIdentity], now: datetime) -> dict[str, int]:
        """Return today's attempts from the ledger, by gate name."""
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


def split_cap(cap: Cap, seeds: int, *, to_seeds: bool) -> Cap:
    """Return one part of a cap: that of mail to seed lists, or that of all other mail.

    Args:
        cap: The whole cap.
        seeds: Messages to seed lists that are planned for the day.
        to_seeds: Which part to return: that of seed lists, or the rest.
    """
    part = min(seeds, cap.cap)
    if to_seeds:
        return Cap(cap=part, paused_until=cap.paused_until, whole=cap.cap)
    return Cap(cap=cap.cap - part, paused_until=cap.paused_until)


def effective_cap(group: Sequence[WarmingIdentity], provider: str, newest: Mapping[Pair, WarmupDayRow]) -> Cap:
    """Return the cap that applies to identities with the same senders, from the newest day of each."""
    return combine_caps(_cap(identity, provider, newest.get((identity.name, provider))) for identity in group)


def _cap(identity: WarmingIdentity, provider: str, row: WarmupDayRow | None) -> Cap:
    if row is None:
        return Cap(cap=plan_for(identity.warmup, provider).first)
    return Cap(cap=row.cap, paused_until=row.paused_until)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
