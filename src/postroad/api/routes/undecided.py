"""Messages of which a person decides what becomes: unknown and dead ones."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from postroad.api.access import ApiRoute, Caller, needs
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
from postroad.api.problems import ProblemKind, invalid
from postroad.app.replay import replay
from postroad.app.undecided import Decision, decide, decisions_for
from postroad.app.unknown import resolve
from postroad.delivery.job import SEND_QUEUE, job_id
from postroad.operations.unknown import Resolution
from postroad.read_model.page import Page
from postroad.read_model.undecided import CauseCount, UndecidedTouch, undecided_counts, undecided_of_state
from postroad.settings import AccessRole
from postroad.store.engine import read
from postroad.store.ledger import UNDECIDED, TouchState
from postroad.store.touch_lookup import touches_by_ids
from postroad.touch_search import queue_of_touch

router = APIRouter(route_class=ApiRoute, tags=["undecided"])

Cause = Annotated[
    str | None, Query(max_length=100, description="only of this cause; empty: those without a recorded one")
]


class CauseAnswer(Answer):
    """Number of messages in one state for one cause."""

    state: TouchState = Field(description="`dead` or `unknown`")
    cause: str = Field(description="empty: it is not recorded")
    messages: int


class CauseList(Answer):
    """Undecided messages by state and cause, the largest number first."""

    items: list[CauseAnswer]


class UndecidedAnswer(Answer):
    """A message that is dead, or of which it is unknown whether it was sent."""

    id: int
    to: str
    campaign: str
    step: str
    cause: str = Field(description="empty: it is not recorded")
    since: Time | None
    reply: str | None = Field(description="last reply of the receiver, or why it ended")


class UndecidedPage(Answer):
    """A page of messages, in the order of causes, campaigns and ids."""

    items: list[UndecidedAnswer]
    next: str | None = Field(description="cursor of the next page, which may be empty; null: this is the last one")


class ResolutionInput(Input):
    """What became of a message: `accepted` (it was sent), `not-sent` (send it), `dead` (give it up)."""

    outcome: Resolution


class Resolved(Answer):
    """A message that was resolved."""

    id: int
    outcome: Resolution


Ids = Annotated[list[Annotated[int, Field(ge=1, le=10**18 - 1)]], Field(min_length=1, max_length=1_000, examples=[[1]])]


class ReplayInput(Input):
    """Messages to send again."""

    ids: Ids


class DecisionInput(Input):
    """What becomes of messages in one state."""

    ids: Ids
    state: TouchState = Field(description="their state: `dead` or `unknown`. Those that left it are skipped")
    decision: Decision = Field(
        description="`delivered` (of unknown ones: they arrived), `send-again`, or `drop` (they are not sent again)"
    )


class MessagesDecided(Answer):
    """What a call did."""

    decided: int


class Replayed(Answer):
    """How many are sent again. Messages that bounced, and those of cancelled campaigns, are skipped."""

    replayed: int


@router.get("/undecided", responses=problems())
@needs(AccessRole.VIEW)
async def count_undecided(caller: CallerParameter) -> CauseList:
    """Count the dead and the unknown messages by cause. Dead ones of cancelled campaigns are not counted."""

    def look() -> list[CauseCount]:
        with read(caller.parts.context.engine) as connection:
            return undecided_counts(connection)

    counts = await asyncio.to_thread(look)
    return CauseList(
        items=[CauseAnswer(state=count.state, cause=count.cause, messages=count.touches) for count in counts]
    )


@router.post("/undecided/decide", responses=problems(*WITH_BODY))
@needs(AccessRole.OPERATE)
async def decide_messages(decision: DecisionInput, caller: CallerParameter) -> MessagesDecided:
    """Decide what becomes of dead or unknown messages, as on the page *Undecided*."""
    if decision.state not in UNDECIDED:
        raise invalid("state", f"messages that are {decision.state} are not undecided")
    if decision.decision not in decisions_for(decision.state):
        raise invalid("decision", f"{decision.state} messages cannot be decided as {decision.decision}")
    context = caller.parts.context
    queues = await _by_queue(caller, decision.ids)
    async with caller.act(f"message.{decision.decision}", f"{len(decision.ids):,} messages") as act:
        act.count = 0
        for name, ids in queues.items():
            queue = await context.queue(name)
            act.count += await decide(context, queue, ids, decision.state, decision.decision, by=caller.name)
    return MessagesDecided(decided=act.count)


@router.get("/unknown", responses=problems())
@needs(AccessRole.VIEW)
async def list_unknown_messages(
    caller: CallerParameter, cursor: CursorParameter = None, limit: Limit = DEFAULT_PAGE, cause: Cause = None
) -> UndecidedPage:
    """List messages that may or may not have been sent. They are held until they are resolved."""
    return await _page(caller, TouchState.UNKNOWN, cause, cursor, limit)


@router.get("/dead-letters", responses=problems())
@needs(AccessRole.VIEW)
async def list_dead(
    caller: CallerParameter, cursor: CursorParameter = None, limit: Limit = DEFAULT_PAGE, cause: Cause = None
) -> UndecidedPage:
    """List messages that ended without success and may be sent again."""
    return await _page(caller, TouchState.DEAD, cause, cursor, limit)


async def _page(caller: Caller, state: TouchState, cause: str | None, cursor: str | None, limit: int) -> UndecidedPage:
    kind = f"{state} {cause!r}"
    key = caller.parts.cursors.read(kind, cursor)
    after = str(key[0]) if key else None

    def look() -> Page[UndecidedTouch]:
        with read(caller.parts.context.engine) as connection:
            return undecided_of_state(connection, state=state, cause=cause, after=after, limit=limit)

    page = await asyncio.to_thread(look)
    return UndecidedPage(
        items=[_answer(row) for row in page.rows],
        next=caller.parts.cursors.sign(kind, [page.next]) if page.next is not None else None,
    )


def _answer(row: UndecidedTouch) -> UndecidedAnswer:
    touch = row.touch
    return UndecidedAnswer(
        id=touch.id,
        to=touch.address,
        campaign=touch.campaign,
        step=touch.step,
        cause=row.cause,
        since=touch.settled_at,
        reply=touch.reply,
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
    queues = await _by_queue(caller, [id])
    queue = await context.queue(next(iter(queues), SEND_QUEUE))
    async with caller.act("unknown.resolve", f"message {id}", note=resolution.outcome.value) as act:
        act.count = 1
        await resolve(context, queue, job_id(id), resolution.outcome, by=caller.name)
    return Resolved(id=id, outcome=resolution.outcome)


@router.post("/dead-letters/replay", responses=problems(*WITH_BODY))
@needs(AccessRole.OPERATE)
async def replay_dead(letters: ReplayInput, caller: CallerParameter) -> Replayed:
    """Send dead letters again. Hard bounces and mail of cancelled campaigns are skipped."""
    context = caller.parts.context
    queues = await _by_queue(caller, letters.ids)
    async with caller.act("dead.replay", f"{len(letters.ids):,} messages") as act:
        act.count = 0
        for name, ids in queues.items():
            act.count += await replay(context, await context.queue(name), ids)
    return Replayed(replayed=act.count)


async def _by_queue(caller: Caller, touch_ids: list[int]) -> dict[str, list[str]]:
    """Return the ids of jobs of these messages by the queue that sends them. Those without a row are missing."""

    def look() -> dict[str, list[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        with read(caller.parts.context.engine) as connection:
            for touch in touches_by_ids(connection, list(dict.fromkeys(touch_ids))):
                found[queue_of_touch(touch)].append(job_id(touch.id))
        return dict(found)

    return await asyncio.to_thread(look)
