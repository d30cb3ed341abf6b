"""Reports the state of warmups, for commands and run pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import groupby

import sqlalchemy as sa
from msgspec import Struct
from msgspec.structs import replace

from postroad.dns.providers import OTHER_PROVIDERS, provider_of
from postroad.printable import counted
from postroad.store.engine import read
from postroad.store.reputation import ReputationDay, reputation_of
from postroad.store.warmup import days_of, under_way
from postroad.warmup.day import Pair, count_mail, day_of, history_of, to_warmup_day
from postroad.warmup.decide import Move, WarmupDay
from postroad.warmup.identity import WarmingIdentity
from postroad.warmup.plan import plan_for
from postroad.warmup.show import draw_days, draw_plan, markdown_table
from postroad.warmup.simulate import SimulatedDay

SHOWN = timedelta(days=400)
PICTURED = 30
REPORTED = timedelta(days=30)


class WarmupStatus(Struct, frozen=True, kw_only=True):
    """State of one identity at one provider: its newest day, the plan's cap for it, and the day before."""

    identity: str
    provider: str
    planned: int
    today: WarmupDay
    yesterday: WarmupDay | None
    late: bool
    """Today is not decided yet, so the last cap holds."""
    days: list[SimulatedDay]
    """All of its days, each with the plan's cap."""
    reported: list[ReputationDay] = []
    """The provider's reports on it of the last month, the oldest first."""
    used: int = 0
    """Messages that were attempted today."""
    waiting: int = 0
    """Messages that are queued or being sent."""


def warmup_statuses(engine: sa.Engine, identities: Sequence[WarmingIdentity], now: datetime) -> list[WarmupStatus]:
    """Return the state of each identity at each provider that has sent or waiting mail.

    Before the first day of a provider is decided, the plan's first cap holds.

    Args:
        engine: The ledger.
        identities: The identities.
        now: The time.

    Returns:
        The states, sorted by identity and provider.

    Raises:
        UnavailableError: The database is unreachable.
    """
    by_name = {identity.name: identity for identity in identities}
    first = min((day_of(identity, now) for identity in identities), default=now.date())
    reports = reports_of(engine, identities, now)
    history = dict(history_of(engine, list(by_name), first - SHOWN))
    used, waiting = _today(engine, identities, now)
    statuses = []
    for name, provider in sorted({*history, *used, *waiting}):
        identity, pair = by_name[name], (name, provider)
        today = day_of(identity, now)
        rows = [to_warmup_day(row) for row in history.get(pair, ())] or [_first_day(identity, provider, today)]
        status = _status_at(identity, provider, rows, today, reports)
        statuses.append(replace(status, used=used[pair], waiting=waiting[pair]))
    return statuses


def warmup_curves(
    connection: sa.Connection, identities: Sequence[WarmingIdentity], now: datetime
) -> list[WarmupStatus]:
    """Return the days of each identity at each provider, without counting the mail of today.

    Args:
        connection: A connection in a transaction.
        identities: The identities.
        now: The time.

    Returns:
        The states with a decided day, sorted by identity and provider; ``used`` and ``waiting`` are 0.
    """
    by_name = {identity.name: identity for identity in identities}
    first = min((day_of(identity, now) for identity in identities), default=now.date())
    known_as = sorted({name for identity in identities for name in identity.known_as})
    reports = sorted(reputation_of(connection, known_as, now.date() - REPORTED), key=lambda report: report.day)
    days = days_of(connection, list(by_name), since=first - SHOWN)
    statuses = []
    for (name, provider), rows in groupby(days, lambda row: (row.identity, row.provider)):
        identity = by_name[name]
        of_pair = [to_warmup_day(row) for row in rows]
        statuses.append(_status_at(identity, provider, of_pair, day_of(identity, now), reports))
    return statuses


def _today(
    engine: sa.Engine, identities: Sequence[WarmingIdentity], now: datetime
) -> tuple[Counter[Pair], Counter[Pair]]:
    """Count the messages that were attempted today and those that wait, by identity and provider."""
    used: Counter[Pair] = Counter()
    waiting: Counter[Pair] = Counter()
    with read(engine) as connection:
        for identity in identities:
            today = day_of(identity, now)
            for provider, counts in count_mail(connection, identity, [today])[today].items():
                used[identity.name, provider] += counts.attempts
            for touches in under_way(connection, identity.senders):
                waiting[identity.name, provider_of(touches.domain, touches.provider)] += touches.touches
    return used, waiting


def _first_day(identity: WarmingIdentity, provider: str, today: date) -> WarmupDay:
    start = identity.warmup.start
    reason = "the first day" if start is None or start <= today else f"it starts on {start}"
    return WarmupDay(day=today, cap=plan_for(identity.warmup, provider).first, move=Move.START, reason=reason)


def reports_of(engine: sa.Engine, identities: Sequence[WarmingIdentity], now: datetime) -> list[ReputationDay]:
    """Return the providers' reports on these identities of the last month, the oldest first.

    Args:
        engine: Database of the reports.
        identities: The identities.
        now: The time.

    Returns:
        The reports.

    Raises:
        UnavailableError: The database is unreachable.
    """
    known_as = sorted({name for identity in identities for name in identity.known_as})
    with read(engine) as connection:
        return sorted(reputation_of(connection, known_as, now.date() - REPORTED), key=lambda report: report.day)


def _status_at(
    identity: WarmingIdentity, provider: str, rows: Sequence[WarmupDay], today: date, reports: Sequence[ReputationDay]
) -> WarmupStatus:
    plan = plan_for(identity.warmup, provider)
    days: list[SimulatedDay] = []
    caps = plan.caps()
    for number, day in enumerate(rows, start=1):
        if day.move is Move.RESTART:
            caps = plan.caps()
        days.append(SimulatedDay(number=number, planned=next(caps), day=day))
    last = days[-1]
    return WarmupStatus(
        identity=identity.name,
        provider=provider,
        planned=last.planned,
        today=last.day,
        yesterday=days[-2].day if len(days) > 1 else None,
        late=last.day.day < today,
        days=days,
        reported=[report for report in reports if report.provider == provider and report.subject in identity.known_as],
    )


COLUMNS = (
    "identity",
    "provider",
    "cap",
    "of the plan",
    "used",
    "waiting",
    "today",
    "why",
    "sent the day before",
    "bounced",
    "complained",
    "deferred",
    "blocked",
    "reported spam",
)


def table_row(status: WarmupStatus) -> list[object]:
    """Return the values of `COLUMNS`."""
    today, before = status.today, status.yesterday
    paused = f"; paused until {today.paused_until:%Y-%m-%d %H:%M} UTC" if today.paused_until else ""
    counts = before.counts if before is not None else None
    return [
        status.identity,
        status.provider,
        today.cap,
        status.planned,
        status.used,
        status.waiting,
        f"{today.move} (decided {today.day})" if status.late else today.move,
        today.reason + paused,
        *(
            [None] * 5
            if counts is None
            else [counts.attempts, counts.bounced, counts.complained, counts.deferred, counts.blocked]
        ),
        reported_spam(status.reported),
    ]


def reported_spam(reports: Sequence[ReputationDay]) -> str | None:
    """Describe the newest reported spam rate, the worst one of its day; None if there is no rate."""
    rated = [(report.day, report.spam_rate) for report in reports if report.spam_rate is not None]
    if not rated:
        return None
    day, rate = max(rated)
    return f"{rate:.2%} on {day}"


def newest(reports: Sequence[ReputationDay]) -> list[ReputationDay]:
    """Return the last report of each source and subject; ``reports`` has the oldest first."""
    return list({(report.source, report.subject): report for report in reports}.values())


def describe_report(report: ReputationDay) -> str:
    """Describe a provider's report on a domain or an address in one line."""
    facts = [
        f"{report.spam_rate:.2%} spam" if report.spam_rate is not None else "no rate",
        *([counted(report.messages, "message")] if report.messages is not None else []),
        *([f"{report.trap_hits:,} to traps"] if report.trap_hits else []),
        *([report.verdict] if report.verdict else []),
    ]
    return f"{report.source} on {report.subject}, {', '.join(facts)}, {report.day}"


def planned_caps(identities: Sequence[WarmingIdentity], provider: str = OTHER_PROVIDERS) -> list[int]:
    """Return the plan's caps of the first days. All identities of a sender have the same plan."""
    caps = plan_for(identities[0].warmup, provider).caps()
    return [cap for _, cap in zip(range(PICTURED), caps, strict=False)]


def markdown(sender: str, statuses: Sequence[WarmupStatus], ahead: Sequence[int] = ()) -> str:
    """Describe a sender's warmup for the page of a run: today's table, and each curve with the plan's.

    Args:
        sender: Name of the sender.
        statuses: Its state at each provider.
        ahead: The plan's caps, shown as long as no mail was sent.

    Returns:
        Text in Markdown.
    """
    if not statuses:
        return (
            f"# Warmup of {sender}\n\nNothing was sent yet: the plan's first cap holds at every provider.\n\n"
            f"## The curve of the plan, day by day\n\n```\n{chr(10).join(draw_plan(ahead))}\n```\n\n"
            "Each tenfold is as wide as the one before. At Google it grows more slowly."
        )
    parts = [f"# Warmup of {sender}", markdown_table(COLUMNS, map(table_row, statuses))]
    for status in statuses:
        parts += [
            f"## {status.identity} at {status.provider}",
            "```\n" + "\n".join(draw_days(status.days[-PICTURED:])) + "\n```",
        ]
    parts.append("Each tenfold is as wide as the one before; `│` is the plan.")
    return "\n\n".join(parts)
