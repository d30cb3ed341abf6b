"""What a rehearsal found: read from the ledger, and from the sandbox that has what was accepted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from postroad.campaign.status import StepSummary, summary
from postroad.delivery.cohorts.breaker import held
from postroad.rehearsal.holds import Hold
from postroad.rehearsal.pace import KEPT_UP_MS, SpeedController
from postroad.rehearsal.stage import RehearsalEnvironment
from postroad.sandbox import Cast
from postroad.store.campaign import CampaignState
from postroad.store.cohort import pauses
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from postroad.store.types import UtcDateTime

NOBODY = "well-behaved"


@dataclass(frozen=True, kw_only=True)
class RehearsedStep:
    """One email: its touches by state, which sum to ``touches``."""

    name: str
    touches: int
    counts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class PersonaAccount:
    """How one persona's recipients fared. Seconds are of the campaign's time, from due to accepted."""

    persona: str
    recipients: int
    touches: int
    accepted: int
    deferred: int
    median_seconds: float | None
    slowest_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Said:
    """Replies of one kind, and what delivery made of them. ``times`` counts attempts, ``reply`` is one of them."""

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
    """A cohort that the breaker paused: when, why, and how many of its touches waited for somebody at the end."""

    step: str
    source: str
    provider: str
    at: datetime
    reason: str
    waiting: int


@dataclass(frozen=True, kw_only=True)
class RehearsalRun:
    """How the rehearsal itself went."""

    real_seconds: float
    speed_asked: float
    speed_mean: float
    speed_slowest: float
    lag_seconds: float
    kept_up: bool


@dataclass(frozen=True, kw_only=True)
class RehearsalReport:
    """The account of a rehearsal.

    ``ended``: why it stopped. ``complete``: the counts sum to the audience, the provider has what was accepted, and
    nobody has anything twice.
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
    said: tuple[Said, ...]
    holds: tuple[Hold, ...]
    paused: tuple[PausedList, ...]
    slots_full_seconds: float
    captured: int
    duplicates: int
    complete: bool
    run: RehearsalRun


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What only the rehearsal itself could see."""

    launched_at: datetime
    imported: int
    ended: str
    real_seconds: float
    speed_asked: float
    pace: SpeedController
    holds: tuple[Hold, ...]


def make_report(stage: RehearsalEnvironment, name: str, seen: Observed) -> RehearsalReport:
    """Sum up. The crew has gone home, and all that happened is recorded."""
    current = summary(stage.parts.engine, name)
    accepted = sum(step.counts[TouchState.ACCEPTED] for step in current.steps)
    captured = stage.sandbox.accepted()
    copies = Counter(message.message_id for message in captured)
    duplicates = len(captured) - len(copies)
    with read(stage.parts.engine) as connection:
        said = _said(connection, stage.cast)
        personas = _personas(connection, stage.cast)
        paused = _paused(connection, stage)
        last: datetime | None = connection.execute(
            sa.text("SELECT max(settled_at) AS last FROM touch").columns(sa.column("last", UtcDateTime()))
        ).scalar()
    finished = current.state is CampaignState.FINISHED
    passed_s = (stage.clock.now() - seen.launched_at).total_seconds()
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
        said=said,
        holds=seen.holds,
        paused=paused,
        slots_full_seconds=seen.pace.full_ms / 1000,
        captured=len(captured),
        duplicates=duplicates,
        complete=current.audience == seen.imported and len(copies) >= accepted and duplicates == 0,
        run=RehearsalRun(
            real_seconds=round(seen.real_seconds, 1),
            speed_asked=seen.speed_asked,
            speed_mean=round(passed_s / max(seen.real_seconds, 0.001), 1),
            speed_slowest=round(seen.pace.slowest, 1),
            lag_seconds=round(seen.pace.lag_ms / 1000, 1),
            kept_up=seen.pace.lag_ms <= KEPT_UP_MS,
        ),
    )


def _step(step: StepSummary) -> RehearsedStep:
    counts = {str(state): n for state, n in step.counts.items() if n}
    return RehearsedStep(name=step.name, touches=step.touches, counts=counts)


def _paused(connection: sa.Connection, stage: RehearsalEnvironment) -> tuple[PausedList, ...]:
    """In the order in which they were paused."""
    waiting = held(connection, stage.parts.settings.cohort_breaker.source_field, stage.clock.now())
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


def _said(connection: sa.Connection, cast: Cast) -> tuple[Said, ...]:
    """Everything but acceptance, by persona and kind, what came most often first."""
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
        persona = cast.persona_of(row.domain) or NOBODY
        kinds[persona, row.state, row.reply_code, row.enhanced_code, row.cause].append(row)
    found = (
        Said(
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
    return tuple(sorted(found, key=lambda said: (-said.times, said.persona, said.outcome)))


def _personas(connection: sa.Connection, cast: Cast) -> tuple[PersonaAccount, ...]:
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
        touches[cast.persona_of(row.domain) or NOBODY].append(row)
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
