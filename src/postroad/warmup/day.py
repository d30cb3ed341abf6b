"""Closes past warmup days and decides the current one, once for each identity, provider and day.

Everything is written in one transaction that holds a lock. A second run, late or concurrent, changes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from postroad.delivery.outcome import HARD_CAUSES
from postroad.dns.providers import provider_of
from postroad.store import warmup as store
from postroad.store.engine import read, write
from postroad.store.reputation import ReputationDay, reputation_of
from postroad.store.warmup import Span, WarmupDayRow, WarmupOverride
from postroad.warmup.decide import (
    ASSESSED_DAYS,
    KEPT_DAYS,
    NOTHING_REPORTED,
    Move,
    WarmupDay,
    decide,
    fill_missing_days,
)
from postroad.warmup.health import Counts
from postroad.warmup.identity import WarmingIdentity
from postroad.warmup.plan import plan_for

Pair = tuple[str, str]
"""An identity and a mailbox provider."""


def day_of(identity: WarmingIdentity, now: datetime) -> date:
    """Return the current day in the identity's time zone."""
    return now.astimezone(identity.zone).date()


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the time at which a day begins in a zone."""
    return datetime.combine(day, time(), tzinfo=zone)


def close_day(engine: sa.Engine, identity: WarmingIdentity, now: datetime) -> list[WarmupDayRow]:
    """Count the outcomes of recent mail, and decide today's caps that are not decided yet.

    A provider's warmup begins with the first mail to it.

    Returns:
        Today's row of each provider. Empty before the warmup starts.

    Raises:
        UnavailableError: The database is unreachable. Nothing is decided then.
    """
    today = day_of(identity, now)
    if identity.warmup.start is not None and today < identity.warmup.start:
        return []
    kept_since = today - timedelta(days=KEPT_DAYS)
    with read(engine) as connection:  # Counting is slow for much mail, so it runs before the lock is taken.
        known = store.days_of(connection, [identity.name], since=kept_since)
        last = max((row.day for row in known), default=today)
        since = min(today - timedelta(days=ASSESSED_DAYS), last)
        counted = count_mail(connection, identity, [since + timedelta(days=n) for n in range((today - since).days + 1)])
        reported = spam_rates(reputation_of(connection, identity.known_as, since))
    with write(engine) as connection:
        store.acquire_lock(connection)
        known = store.days_of(connection, [identity.name], since=kept_since)  # Another process may have decided.
        rows: list[WarmupDayRow] = []
        for provider, days in _by_provider(known, counted).items():
            rates = reported.get(provider, NOTHING_REPORTED)
            rows += _close_provider(identity, provider, days, counted, rates, now)
        store.save_days(connection, rows)
        newest = store.days_of(connection, [identity.name], since=today)
    return [row for row in newest if row.day == today]


def _by_provider(
    known: Sequence[WarmupDayRow], counted: Mapping[date, Mapping[str, Counts]]
) -> dict[str, list[WarmupDayRow]]:
    by_provider: dict[str, list[WarmupDayRow]] = defaultdict(list)
    for row in known:
        by_provider[row.provider].append(row)
    for day in counted.values():
        for provider in day:
            by_provider[provider] += ()
    return by_provider


def _close_provider(
    identity: WarmingIdentity,
    provider: str,
    rows: Sequence[WarmupDayRow],
    counted: Mapping[date, Mapping[str, Counts]],
    reported: Mapping[date, float],
    now: datetime,
) -> list[WarmupDayRow]:
    """Return the rows to write: days whose counts changed, days without a decision, and today."""
    today = day_of(identity, now)

    def with_counts(day: WarmupDay) -> WarmupDay:
        counts = counted[day.day].get(provider, Counts()) if day.day in counted else day.counts
        return WarmupDay(
            day=day.day, cap=day.cap, move=day.move, reason=day.reason, paused_until=day.paused_until, counts=counts
        )

    plan = plan_for(identity.warmup, provider)
    days = [to_warmup_day(row) for row in rows]
    kept = {day.day: day for day in days}
    if not days:
        first = min(day for day, counts in counted.items() if provider in counts)
        days = [WarmupDay(day=first, cap=plan.first, move=Move.START, reason="the first day")]
    history = [with_counts(day) for day in fill_missing_days([day for day in days if day.day < today], until=today)]
    decided = next((day for day in days if day.day == today), None)
    newest = with_counts(decided or decide(plan, history, today=today, now=now, reported=reported))
    return [_to_row(identity.name, provider, day, now) for day in (*history, newest) if kept.get(day.day) != day]


def spam_rates(reports: Iterable[ReputationDay]) -> dict[str, dict[date, float]]:
    """Return the highest reported spam rate, as a share from 0 to 1, by mailbox provider and day."""
    rates: dict[str, dict[date, float]] = defaultdict(dict)
    for report in reports:
        if report.spam_rate is not None:
            days = rates[report.provider]
            days[report.day] = max(days.get(report.day, 0.0), report.spam_rate)
    return rates


def to_warmup_day(row: WarmupDayRow) -> WarmupDay:
    counts = Counts(**{name: getattr(row, name) for name in store.COUNTED})
    return WarmupDay(
        day=row.day,
        cap=row.cap,
        move=Move(row.move),
        reason=row.reason,
        paused_until=row.paused_until,
        counts=counts,
    )


def _to_row(identity: str, provider: str, day: WarmupDay, now: datetime) -> WarmupDayRow:
    return WarmupDayRow(
        identity=identity,
        provider=provider,
        day=day.day,
        cap=day.cap,
        move=day.move.value,
        reason=day.reason[:500],
        paused_until=day.paused_until,
        decided_at=now,
        **{name: getattr(day.counts, name) for name in store.COUNTED},
    )


def span_of(identity: WarmingIdentity, day: date) -> Span:
    """Return the start and end of a day in an identity's time zone."""
    return Span(day, midnight(day, identity.zone), midnight(day + timedelta(days=1), identity.zone))


def count_mail(
    connection: sa.Connection, identity: WarmingIdentity, days: Sequence[date], *, seeds: bool | None = None
) -> dict[date, dict[str, Counts]]:
    """Count the outcomes of an identity's mail, by day and mailbox provider.

    Args:
        connection: Connection to the database.
        identity: The identity whose senders' mail is counted.
        days: Days in the identity's time zone.
        seeds: True: count only mail to seed lists; False: count only other mail; None: count all.

    Returns:
        The counts of each day, by provider.
    """
    spans = [span_of(identity, day) for day in days]
    by_day: dict[date, dict[str, Counts]] = {day: {} for day in days}

    def add(day: date, domain: str, provider: str | None, counts: Counts) -> None:
        name = provider_of(domain, provider)
        by_day[day][name] = by_day[day].get(name, Counts()) + counts

    for day, domain, provider, attempts, accepted, bounced, deferred, blocked in store.sent_mail(
        connection, identity.senders, spans, hard_causes=HARD_CAUSES, seeds=seeds
    ):
        counts = Counts(attempts=attempts, accepted=accepted, bounced=bounced, deferred=deferred, blocked=blocked)
        add(day, domain, provider, counts)
    for day, domain, provider, recipients in store.complaints(connection, identity.senders, spans):
        add(day, domain, provider, Counts(complained=recipients))
    return by_day


def count_seeds(connection: sa.Connection, identity: WarmingIdentity, day: date) -> dict[str, int]:
    """Count a day's messages to an identity's seed lists, sent or not, by mailbox provider."""
    by_provider: Counter[str] = Counter()
    for domain, provider, touches in store.planned_seeds(connection, identity.senders, span_of(identity, day)):
        by_provider[provider_of(domain, provider)] += touches
    return by_provider


def set_cap(
    engine: sa.Engine, identity: WarmingIdentity, provider: str, cap: int, *, by: str, why: str, now: datetime
) -> WarmupDayRow:
    """Replace today's decision with a cap, end a pause, and record the operator and the reason.

    Args:
        engine: Database of the warmup.
        identity: The identity that the cap applies to.
        provider: The mailbox provider that the cap applies to.
        cap: Messages a day.
        by: Who sets the cap.
        why: The reason.
        now: The time.

    Returns:
        The row that was written.

    Raises:
        UnavailableError: The database is unreachable.
    """
    today = day_of(identity, now)
    day = WarmupDay(day=today, cap=cap, move=Move.OVERRIDE, reason=f"set by {by}: {why}")
    row = _to_row(identity.name, provider, day, now)
    override = WarmupOverride(
        identity=identity.name, provider=provider, day=today, cap=cap, by=by[:100], why=why[:500], at=now
    )
    with write(engine) as connection:
        store.acquire_lock(connection)
        store.override_day(connection, override, row)
    return row


def history_of(engine: sa.Engine, names: Sequence[str], since: date) -> Iterator[tuple[Pair, list[WarmupDayRow]]]:
    """Yield the days of each identity at each provider, from ``since`` on."""
    with read(engine) as connection:
        rows = store.days_of(connection, names, since=since)
    for pair, days in groupby(rows, lambda row: (row.identity, row.provider)):
        yield pair, list(days)
