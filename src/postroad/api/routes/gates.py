"""Gates: list, pause, resume."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import Field

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import WITH_BODY, Answer, CallerParameter, Input, Time, problems
from postroad.api.problems import ProblemKind
from postroad.app import gate_acts
from postroad.app.gate_names import require_gate
from postroad.delivery.job import SEND_QUEUE
from postroad.operations import gate_pauses
from postroad.queue import FOREVER_MS
from postroad.settings import MAX_DURATION_MS, AccessRole

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
    context = caller.parts.context
    queue = await context.queue(SEND_QUEUE)
    await require_gate(context, queue, pause.gate)
    async with caller.act("gate.pause", pause.gate, first=True):
        now = context.clock.now()
        await gate_pauses.pause_gate(context.engine, queue, pause.gate, pause.for_ms, by=caller.name, now=now)
    return GatePauseAnswer(gate=pause.gate, paused=True)


@router.post("/gates/resume", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND))
@needs(AccessRole.OPERATE)
async def resume_gate(resume: GateInput, caller: CallerParameter) -> GatePauseAnswer:
    """Lift the pause of a gate, and undo what a receiver's reply had set."""
    context = caller.parts.context
    queue = await context.queue(SEND_QUEUE)
    await require_gate(context, queue, resume.gate)
    async with caller.act("gate.resume", resume.gate, first=True):
        await gate_acts.resume_gate(context, queue, resume.gate, by=caller.name)
    return GatePauseAnswer(gate=resume.gate, paused=False)


def _at(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
