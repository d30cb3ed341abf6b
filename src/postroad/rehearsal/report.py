"""Makes the report of a rehearsal from the ledger, and from the messages that the sandbox accepted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from postroad.campaign.status import StepSummary, summary
from postroad.rehearsal.environment import RehearsalEnvironment
from postroad.rehearsal.holds import Hold
from postroad.rehearsal.speed import KEPT_UP_MS, SpeedController
from postroad.rehearsal.warmup import OverflowAccount, WarmupDayAccount, overflow_account
from postroad.sandbox import PersonaMap
from postroad.senders.cohort_breaker import count_held
from postroad.store.campaign import CampaignState
from postroad.store.cohort import pauses
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from postroad.store.types import UtcDateTime

NO_PERSONA = "well-behaved"


@dataclass(frozen=True, kw_only=True)
class RehearsedStep:
    """One email: its touches by state, which sum to ``touches``."""

    name: str
    touches: int
    counts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class PersonaAccount:
    """The recipients of one persona. Seconds are of the campaign's time, from due to accepted."""

    persona: str
    recipients: int
    touches: int
    accepted: int
    deferred: int
    median_seconds: float | None
    slowest_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class ReplyAccount:
    """Replies of one kind, and the outcome. ``times`` counts attempts, ``reply`` is an example."""

    persona: str
    outcome: str
    code: int | None
    enhanced: str | None
    cause: str | None
    times: int
    recipients: int
    reply: str | None


@dataclass(frozen=True, kw_only=True)
class PausedList:
    """A cohort that the breaker paused: when, why, and how many of its touches waited at the end."""

    step: str
    source: str
    provider: str
    at: datetime
    reason: str
    waiting: int


@dataclass(frozen=True, kw_only=True)
class RehearsalRun:
    """Speed and lag of the rehearsal itself."""

    real_seconds: float
    speed_asked: float
    speed_mean: float
    speed_slowest: float
    lag_seconds: float
    kept_up: bool


@dataclass(frozen=True, kw_only=True)
class RehearsalReport:
    """The account of a rehearsal.

    Attributes:
        ended: Why it stopped.
        warmup: The caps of warming senders and what they sent, by day.
        overflow: What other senders took over.
        complete: The counts sum to the audience, the provider has what was accepted, and no recipient has two copies.
    """

    campaign: str
    finished: bool
    ended: str
    launched_at: datetime
    finished_at: datetime | None
    seconds: float | None
    audience: int
    steps: tuple[RehearsedStep, ...]
    personas: tuple[PersonaAccount, ...]
    said: tuple[ReplyAccount, ...]
    holds: tuple[Hold, ...]
    paused: tuple[PausedList, ...]
    warmup: tuple[WarmupDayAccount, ...]
    overflow: tuple[OverflowAccount, ...]
    slots_full_seconds: float
    captured: int
    duplicates: int
    complete: bool
    run: RehearsalRun


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What only the rehearsal itself sees."""

    launched_at: datetime
    imported: int
    ended: str
    real_seconds: float
    speed_asked: float
    speed: SpeedController
    holds: tuple[Hold, ...]
    warmup: tuple[WarmupDayAccount, ...]


def make_report(environment: RehearsalEnvironment, name: str, seen: Observed) -> RehearsalReport:
    """Return the report. The workers have stopped, and every event is recorded."""
    current = summary(environment.context.engine, name)
    accepted = sum(step.counts[TouchState.ACCEPTED] for step in current.steps)
    captured = environment.sandbox.accepted()
    copies = Counter(message.message_id for message in captured)
    duplicates = len(captured) - len(copies)
    with read(environment.context.engine) as connection:
        replies = _replies(connection, environment.cast)
        personas = _personas(connection, environment.cast)
        paused = _paused(connection, environment)
        overflow = overflow_account(connection)
        last: datetime | None = connection.execute(
            sa.text("SELECT max(settled_at) AS last FROM touch").columns(sa.column("last", UtcDateTime()))
        ).scalar()
    finished = current.state is CampaignState.FINISHED
    passed_s = (environment.clock.now() - seen.launched_at).total_seconds()
    return RehearsalReport(
        campaign=name,
        finished=finished,
        ended=seen.ended,
        launched_at=seen.launched_at,
        finished_at=last if finished else None,
        seconds=(last - seen.launched_at).total_seconds() if finished and last else None,
        audience=current.audience,
        steps=tuple(_step(step) for step in current.steps),
        personas=personas,
        said=replies,
        holds=seen.holds,
        paused=paused,
        warmup=seen.warmup,
        overflow=overflow,
        slots_full_seconds=seen.speed.full_ms / 1000,
        captured=len(captured),
        duplicates=duplicates,
        complete=current.audience == seen.imported and len(copies) >= accepted and duplicates == 0,
        run=_run(seen, passed_s),
    )


def _run(seen: Observed, passed_s: float) -> RehearsalRun:
    """Return speed and lag of the rehearsal, which passed so many seconds of the campaign's time."""
    return RehearsalRun(
        real_seconds=round(seen.real_seconds, 1),
        speed_asked=seen.speed_asked,
        speed_mean=round(passed_s / max(seen.real_seconds, 0.001), 1),
        speed_slowest=round(seen.speed.slowest, 1),
        lag_seconds=round(seen.speed.lag_ms / 1000, 1),
        kept_up=seen.speed.lag_ms <= KEPT_UP_MS,
    )


def _step(step: StepSummary) -> RehearsedStep:
    counts = {str(state): n for state, n in step.counts.items() if n}
    return RehearsedStep(name=step.name, touches=step.touches, counts=counts)


def _paused(connection: sa.Connection, environment: RehearsalEnvironment) -> tuple[PausedList, ...]:
    """Return the paused cohorts, in the order in which they were paused."""
    waiting = count_held(connection, environment.context.settings.cohort_breaker.source_field, environment.clock.now())
    return tuple(
        PausedList(
            step=step,
            source=pause.source,
            provider=pause.provider,
            at=pause.at,
            reason=pause.reason,
            waiting=waiting[pause.cohort],
        )
        for _, step, pause in reversed(pauses(connection))
    )


def _replies(connection: sa.Connection, cast: PersonaMap) -> tuple[ReplyAccount, ...]:
    """Return the replies that refused or deferred, by persona and kind, the most frequent first."""
    rows = connection.execute(
        sa.text(
            "SELECT recipient.domain, event.state, event.reply_code, event.enhanced_code, event.cause, "
            "count(*) AS times, count(DISTINCT recipient.id) AS recipients, min(event.reply) AS reply "
            "FROM delivery_event AS event JOIN touch ON touch.id = event.touch_id "
            "JOIN recipient ON recipient.id = touch.recipient_id WHERE event.state <> 'accepted' "
            "GROUP BY recipient.domain, event.state, event.reply_code, event.enhanced_code, event.cause"
        )
    )
    kinds: dict[tuple[str, str, int | None, str | None, str | None], list[sa.Row[Any]]] = defaultdict(list)
    for row in rows:
        persona = cast.persona_of(row.domain) or NO_PERSONA
        kinds[persona, row.state, row.reply_code, row.enhanced_code, row.cause].append(row)
    found = (
        ReplyAccount(
            persona=persona,
            outcome=state,
            code=code,
            enhanced=enhanced,
            cause=cause,
            times=sum(row.times for row in of_kind),
            recipients=sum(row.recipients for row in of_kind),
            reply=of_kind[0].reply,
        )
        for (persona, state, code, enhanced, cause), of_kind in kinds.items()
    )
    return tuple(sorted(found, key=lambda reply: (-reply.times, reply.persona, reply.outcome)))


def _personas(connection: sa.Connection, cast: PersonaMap) -> tuple[PersonaAccount, ...]:
    rows = connection.execute(
        sa.text(
            "SELECT recipient.domain, recipient.id, touch.state, touch.due_at, touch.settled_at, "
            "EXISTS (SELECT 1 FROM delivery_event AS event "
            "        WHERE event.touch_id = touch.id AND event.state = 'deferred') AS deferred "
            "FROM touch JOIN recipient ON recipient.id = touch.recipient_id"
        ).columns(
            sa.column("domain", sa.Text()),
            sa.column("id", sa.Integer()),
            sa.column("state", sa.Text()),
            sa.column("due_at", UtcDateTime()),
            sa.column("settled_at", UtcDateTime()),
            sa.column("deferred", sa.Boolean()),
        )
    )
    touches: dict[str, list[sa.Row[Any]]] = defaultdict(list)
    for row in rows:
        touches[cast.persona_of(row.domain) or NO_PERSONA].append(row)
    accounts = [_account(persona, of_persona) for persona, of_persona in touches.items()]
    return tuple(sorted(accounts, key=lambda account: -account.recipients))


def _account(persona: str, touches: Sequence[sa.Row[Any]]) -> PersonaAccount:
    took = sorted(
        max((row.settled_at - row.due_at).total_seconds(), 0.0) for row in touches if row.state == TouchState.ACCEPTED
    )
    return PersonaAccount(
        persona=persona,
        recipients=len({row.id for row in touches}),
        touches=len(touches),
        accepted=len(took),
        deferred=sum(row.deferred for row in touches),
        median_seconds=round(took[len(took) // 2], 1) if took else None,
        slowest_seconds=round(took[-1], 1) if took else None,
    )
