"""Messages of a campaign as a stream, what happened to messages, and explanations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import (
    DEFAULT_PAGE,
    Answer,
    CallerParameter,
    CampaignName,
    CursorParameter,
    Limit,
    Time,
    problems,
)
from postroad.api.pages import number_of
from postroad.api.problems import ProblemKind
from postroad.event_types import EventType
from postroad.explain.story import tell_story
from postroad.explain.subject import MAX_SUBJECT
from postroad.settings import AccessRole
from postroad.store.campaign_messages import MessageRow, messages_of
from postroad.store.event_stream import PublishedEvent, published_pages
from postroad.store.ledger import TouchState

router = APIRouter(route_class=ApiRoute, tags=["deliveries"])

NDJSON = "application/x-ndjson"


class DeliveryAnswer(Answer):
    """One thing that happened to a message."""

    id: str = Field(description="unique, and the same in webhooks", examples=["evt_0123456789abcdef0123456789abcdef"])
    type: EventType
    at: Time
    message: int = Field(description="id of the message")
    campaign: str
    step: str
    sender: str
    to: str
    provider: str | None
    attempt: int
    reply_code: int | None
    enhanced_code: str | None
    reply: str | None
    cause: str | None
    next_at: Time | None


class DeliveryPage(Answer):
    """A page of what happened, in the order in which it was recorded."""

    items: list[DeliveryAnswer]
    next: str = Field(description="cursor of what comes next, also if there is nothing yet: ask again later")


class StoryAnswer(Answer):
    """Everything about one person or message. docs/reference/explain.md names every field."""

    address: str
    recipient: bool
    suppressed: bool
    answer: str = Field(description="one sentence")
    queue_error: str | None
    enrolments: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    more: bool
    deleted: list[str]
    timeline: list[dict[str, Any]]


@router.get(
    "/campaigns/{name}/messages",
    response_class=StreamingResponse,
    responses={
        **problems(ProblemKind.NOT_FOUND),
        200: {
            "description": "one JSON object in each line: `id`, `to`, `step`, `state`, `due_at`, `ended_at`, `reply`",
            "content": {NDJSON: {"schema": {"type": "string"}}},
        },
    },
)
@needs(AccessRole.VIEW)
async def list_campaign_messages(
    name: CampaignName,
    caller: CallerParameter,
    state: Annotated[TouchState | None, Query(description="only in this state")] = None,
    step: Annotated[str | None, Query(max_length=100, description="only of this email step")] = None,
) -> StreamingResponse:
    """Stream the messages of a campaign as NDJSON, in flat memory."""
    pages = messages_of(caller.parts.context.engine, name, step=step, states=(state,) if state is not None else ())
    # The first page before the answer begins: an unknown name is a problem.
    first = await asyncio.to_thread(next, pages, None)
    return StreamingResponse(_lines(chain([first] if first is not None else [], pages)), media_type=NDJSON)


def _lines(pages: Iterator[list[MessageRow]]) -> Iterator[bytes]:
    encode = msgspec.json.Encoder().encode
    for page in pages:
        yield b"".join(
            encode(
                {
                    "id": row.id,
                    "to": row.address,
                    "step": row.step,
                    "state": row.state.value,
                    "due_at": row.due_at,
                    "ended_at": row.at,
                    "reply": row.reply,
                }
            )
            + b"\n"
            for row in page
        )


@router.get("/deliveries", responses=problems())
@needs(AccessRole.VIEW)
async def list_deliveries(
    caller: CallerParameter, cursor: CursorParameter = None, limit: Limit = DEFAULT_PAGE
) -> DeliveryPage:
    """Return what happened to messages, from the first recorded event on, or after a cursor: each event once.

    An event is returned when no event before it can appear any more, also if several processes record at once.
    """
    after = number_of(caller.parts.cursors.read("deliveries", cursor)) or 0
    engine = caller.parts.context.engine
    until = await caller.parts.find_horizon()

    def look() -> tuple[int, list[PublishedEvent]]:
        return next(published_pages(engine, after, until, limit), (after, []))

    last, events = await asyncio.to_thread(look)
    items = [
        DeliveryAnswer.model_validate(
            {**event._asdict(), "id": event.message_id, "message": event.touch, "to": event.recipient}
        )
        for event in events
    ]
    return DeliveryPage(items=items, next=caller.parts.cursors.sign("deliveries", [last]))


@router.get("/explain", responses=problems(ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.VIEW)
async def explain(
    caller: CallerParameter,
    subject: Annotated[
        str,
        Query(
            min_length=1,
            max_length=MAX_SUBJECT,
            description="an address, a Message-ID or the id of a message",
            examples=["ada@example.org"],
        ),
    ],
    campaign: Annotated[str | None, Query(max_length=100, description="only messages of this campaign")] = None,
) -> StoryAnswer:
    """Explain a person's mail: what holds each message and until when, where the time went, and what happened."""
    story = await tell_story(caller.parts.context, subject, campaign=campaign)
    return StoryAnswer(**msgspec.to_builtins(story))
