"""Gates, and messages that wait for a decision: unknown and dead ones."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import (
    DEFAULT_PAGE,
    WITH_BODY,
    Answer,
    CallerParameter,
    CursorParameter,
    Input,
    Limit,
    MessageNumber,
    Time,
    problems,
)
from postroad.api.problems import ProblemKind
from postroad.app.gate_names import require_gate
from postroad.app.replay import replay
from postroad.app.unknown import resolve
from postroad.delivery.job import SEND_QUEUE
from postroad.operations.dead_letters import list_dead_letters
from postroad.operations.unknown import Resolution, list_unknown
from postroad.queue import FOREVER_MS, DeadLetter
from postroad.settings import MAX_DURATION_MS, AccessRole
from postroad.shaping import shaper

router = APIRouter(route_class=ApiRoute, tags=["operations"])

_MAX_GATE = 1_000


class GateAnswer(Answer):
    """A gate: a limit for which jobs wait."""

    name: str
    rate: str | None = Field(description="jobs per time, such as `30 in 3600 s`")
    concurrency: int | None
    quota_left: int | None
    quota_until: Time | None
    paused: bool
    paused_until: Time | None = Field(description="null of a paused gate: until it is resumed")
    in_flight: int
    waiting_lanes: int


class GateList(Answer):
    """All gates of the queue of mail."""

    items: list[GateAnswer]


class GateInput(Input):
    """A gate."""

    gate: str = Field(min_length=1, max_length=_MAX_GATE, examples=["sender:ada@example.com"])


class PauseInput(GateInput):
    """A gate to pause."""

    for_ms: int | None = Field(default=None, ge=1, le=MAX_DURATION_MS, description="how long; unset: until resumed")


class GatePauseAnswer(Answer):
    """Whether a gate is paused."""

    gate: str
    paused: bool


class UnknownAnswer(Answer):
    """A message of which it is unknown whether it was sent."""

    id: int
    to: str
    campaign: str
    since: Time | None
    reply: str | None


class UnknownList(Answer):
    """Unknown messages, the oldest first."""

    items: list[UnknownAnswer]


class ResolutionInput(Input):
    """What became of a message: `accepted` (it was sent), `not-sent` (send it), `dead` (give it up)."""

    outcome: Resolution


class Resolved(Answer):
    """A message that was resolved."""

    id: int
    outcome: Resolution


class DeadAnswer(Answer):
    """A message that ended without success, and is not retried automatically."""

    id: int
    at: Time
    campaign: str = Field(description="lane or campaign")
    attempt: int
    cause: str
    error: str


class DeadPage(Answer):
    """A page of dead letters, the newest first."""

    items: list[DeadAnswer]
    next: str | None


class ReplayInput(Input):
    """Messages to send again."""

    ids: list[Annotated[int, Field(ge=1, le=10**18 - 1)]] = Field(min_length=1, max_length=1_000)


class Replayed(Answer):
    """How many are sent again. Hard bounces and mail of cancelled campaigns are skipped."""

    replayed: int


@router.get("/gates", responses=problems())
@needs(AccessRole.VIEW)
async def list_gates(caller: CallerParameter) -> GateList:
    """List the gates of the queue of mail, with their limits."""
    queue = await caller.parts.context.queue(SEND_QUEUE)
    items = []
    for state in await queue.gates():
        gate = state.gate
        until_ms = gate.paused_until_ms or 0
        items.append(
            GateAnswer(
                name=gate.name,
                rate=f"{gate.rate.count:g} in {gate.rate.per_ms / 1000:g} s" if gate.rate is not None else None,
                concurrency=gate.concurrency,
                quota_left=gate.quota.left if gate.quota is not None else None,
                quota_until=_at(gate.quota.until_ms) if gate.quota is not None else None,
                paused=bool(until_ms),
                paused_until=_at(until_ms) if 0 < until_ms < FOREVER_MS else None,
                in_flight=state.in_flight,
                waiting_lanes=state.parked_lanes,
            )
        )
    return GateList(items=items)


@router.post("/gates/pause", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND))
@needs(AccessRole.OPERATE)
async def pause_gate(pause: PauseInput, caller: CallerParameter) -> GatePauseAnswer:
    """Let nothing through a gate. What is in flight finishes."""
    queue = await caller.parts.context.queue(SEND_QUEUE)
    await require_gate(caller.parts.context, queue, pause.gate)
    with caller.act("gate.pause", pause.gate, first=True):
        if pause.for_ms is None:
            await queue.pause_gate(pause.gate, None)
        else:
            await queue.pause_gate_for(pause.gate, pause.for_ms)
    return GatePauseAnswer(gate=pause.gate, paused=True)


@router.post("/gates/resume", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND))
@needs(AccessRole.OPERATE)
async def resume_gate(resume: GateInput, caller: CallerParameter) -> GatePauseAnswer:
    """Lift the pause of a gate, and undo what a receiver's reply had set."""
    context = caller.parts.context
    queue = await context.queue(SEND_QUEUE)
    await require_gate(context, queue, resume.gate)
    with caller.act("gate.resume", resume.gate, first=True):
        gates, now = context.gates(queue), context.clock.now()
        await shaper.resume(context.engine, queue, resume.gate, gates=gates, by=caller.name, now=now)
    return GatePauseAnswer(gate=resume.gate, paused=False)


@router.get("/unknown", responses=problems())
@needs(AccessRole.VIEW)
async def list_unknown_messages(caller: CallerParameter, limit: Limit = DEFAULT_PAGE) -> UnknownList:
    """List messages that may or may not have been sent. They are held until they are resolved."""
    queue = await caller.parts.context.queue(SEND_QUEUE)
    found = await list_unknown(caller.parts.context.engine, queue, limit)
    return UnknownList(
        items=[
            UnknownAnswer(id=int(one.id), to=one.address, campaign=one.campaign, since=one.since, reply=one.said)
            for one in found[:limit]
        ]
    )


@router.post("/unknown/{id}/resolve", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.OPERATE)
async def resolve_unknown(
    id: MessageNumber,  # noqa: A002  (name of the parameter)
    resolution: ResolutionInput,
    caller: CallerParameter,
) -> Resolved:
    """Say what became of an unknown message."""
    context = caller.parts.context
    queue = await context.queue(SEND_QUEUE)
    with caller.act("unknown.resolve", f"message {id}", note=resolution.outcome.value) as act:
        act.count = 1
        await resolve(context, queue, str(id), resolution.outcome, by=caller.name)
    return Resolved(id=id, outcome=resolution.outcome)


@router.get("/dead-letters", responses=problems())
@needs(AccessRole.VIEW)
async def list_dead(
    caller: CallerParameter,
    cursor: CursorParameter = None,
    limit: Limit = DEFAULT_PAGE,
    cause: Annotated[str | None, Query(min_length=1, max_length=100, description="only of this cause")] = None,
) -> DeadPage:
    """List messages that ended without success, the newest first."""
    kind = f"dead {cause}"
    key = caller.parts.cursors.read(kind, cursor)
    queue = await caller.parts.context.queue(SEND_QUEUE)
    letters = await list_dead_letters(
        caller.parts.context.engine, queue, cause=cause, until_ms=int(key[0]) if key else None
    )
    ordered = sorted(letters, key=_place, reverse=True)
    if key is not None:
        ordered = [letter for letter in ordered if _place(letter) < (int(key[0]), int(key[1]))]
    shown = ordered[:limit]
    more = len(ordered) > limit
    return DeadPage(
        items=[
            DeadAnswer(
                id=int(letter.id),
                at=datetime.fromtimestamp(letter.at_ms / 1000, UTC),
                campaign=letter.lane,
                attempt=letter.attempt,
                cause=letter.cause,
                error=letter.error,
            )
            for letter in shown
        ],
        next=caller.parts.cursors.sign(kind, list(_place(shown[-1]))) if more else None,
    )


def _place(letter: DeadLetter) -> tuple[int, int]:
    return letter.at_ms, int(letter.id)


@router.post("/dead-letters/replay", responses=problems(*WITH_BODY))
@needs(AccessRole.OPERATE)
async def replay_dead(letters: ReplayInput, caller: CallerParameter) -> Replayed:
    """Send dead letters again. Hard bounces and mail of cancelled campaigns are skipped."""
    context = caller.parts.context
    queue = await context.queue(SEND_QUEUE)
    with caller.act("dead.replay", f"{len(letters.ids):,} messages") as act:
        act.count = await replay(context, queue, [str(id_) for id_ in letters.ids])
    return Replayed(replayed=act.count)


def _at(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
