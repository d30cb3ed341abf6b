"""Endpoints that get events: their state, the log of requests, and what is sent again. No answer has a secret."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query
from pydantic import Field

from postroad.api.access import ApiRoute, Caller, needs
from postroad.api.fields import (
    DEFAULT_PAGE,
    WITH_BODY,
    Answer,
    CallerParameter,
    CursorParameter,
    Input,
    InputTime,
    Limit,
    Time,
    problems,
)
from postroad.api.pages import Row
from postroad.api.problems import ProblemKind
from postroad.app.webhook_dead import resend_dead
from postroad.app.webhooks import (
    list_endpoints,
    named_endpoint,
    redeliver,
    replay_events,
    require_endpoint,
    send_test,
    set_enabled,
)
from postroad.events_out.client import WebhookOutcome
from postroad.events_out.status import EndpointStatus
from postroad.read_model.page import Page
from postroad.read_model.webhooks import DeadEvent, dead_events, webhook_attempts
from postroad.settings import AccessRole
from postroad.store.engine import read
from postroad.store.webhook_log import LogRow

router = APIRouter(route_class=ApiRoute, tags=["webhooks"])

EndpointPath = Annotated[str, Path(max_length=50, description="name of the endpoint", examples=["shop"])]
EventId = Annotated[str, Field(min_length=1, max_length=100, examples=["evt_0b8f1c9d2e3a4b5c6d7e8f9012345678"])]
MAX_REASON = 150


class EndpointAnswer(Answer):
    """An endpoint that gets events."""

    name: str
    status: EndpointStatus
    url: str = Field(description="without its query; empty: the settings do not name the endpoint any more")
    events: list[str] = Field(description="types of events that it gets")
    lag_s: float = Field(description="age of the oldest event that it has not got, in seconds; 0: it has all")
    waiting: int = Field(description="events in the queue for it; at most 10,000 are counted")
    dead: int = Field(description="events of which every attempt failed; at most 10,000 are counted")
    since: Time | None = Field(description="it gets events from this time on; null: no recorder has seen it yet")
    disabled_at: Time | None
    disabled_for: str | None = Field(description="why it is disabled")
    last_at: Time | None = Field(description="when the last request was made")
    last_outcome: WebhookOutcome | None
    last_error: str | None


class EndpointList(Answer):
    """All endpoints, by name."""

    items: list[EndpointAnswer]


class WebhookAttemptAnswer(Answer):
    """One request to an endpoint."""

    id: int
    event: str = Field(description="id of the event, the header `webhook-id`")
    type: str
    attempt: int
    at: Time
    duration_ms: int
    outcome: WebhookOutcome
    status: int | None = Field(description="HTTP status; null: there was no response")
    error: str | None


class WebhookAttemptPage(Answer):
    """A page of requests, the newest first."""

    items: list[WebhookAttemptAnswer]
    next: str | None


class DeadEventAnswer(Answer):
    """An event of which every attempt failed."""

    event: str = Field(description="id of the event, the header `webhook-id`")
    since: Time = Field(description="when it was put into the queue")
    last: WebhookAttemptAnswer | None = Field(description="its last attempt; null: the log does not have it any more")


class DeadEventPage(Answer):
    """A page of dead events, the oldest first."""

    items: list[DeadEventAnswer]
    next: str | None


class RedeliverInput(Input):
    """Events to send again."""

    events: list[EventId] = Field(min_length=1, max_length=500)


class EventsSentAgain(Answer):
    """How many events are sent again."""

    endpoint: str
    events: int


class WebhookReplayInput(Input):
    """Since when events are sent again."""

    since: InputTime = Field(examples=["2026-05-31T07:30:00Z"])


class WebhookReplayAnswer(Answer):
    """A replay that began. Newer events follow after it."""

    endpoint: str
    recorded_events: int = Field(description="events that are read again; the endpoint gets those of its types")


class DisableInput(Input):
    """Why an endpoint is disabled."""

    reason: str = Field(default="", max_length=MAX_REASON, description="it is shown with the endpoint")


class EnabledAnswer(Answer):
    """Whether an endpoint is enabled."""

    endpoint: str
    status: EndpointStatus
    changed: bool = Field(description="whether this call changed anything")


class WebhookTestAnswer(Answer):
    """The result of a test event."""

    endpoint: str
    event: str
    outcome: WebhookOutcome
    status: int | None = Field(description="HTTP status; null: there was no response")
    duration_ms: int
    error: str | None


@router.get("/webhooks", responses=problems())
@needs(AccessRole.VIEW)
async def list_webhooks(caller: CallerParameter) -> EndpointList:
    """List the endpoints that get events: whether each is enabled, its lag, and its last request."""
    reports = await list_endpoints(caller.parts.context)
    return EndpointList(items=[EndpointAnswer.model_validate(report, from_attributes=True) for report in reports])


@router.get("/webhooks/{endpoint}/attempts", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.VIEW)
async def list_webhook_attempts(
    endpoint: EndpointPath,
    caller: CallerParameter,
    cursor: CursorParameter = None,
    limit: Limit = DEFAULT_PAGE,
    event: Annotated[str | None, Query(min_length=1, max_length=100, description="only with this event")] = None,
) -> WebhookAttemptPage:
    """List the requests to an endpoint, the newest first."""
    await require_endpoint(caller.parts.context, endpoint)
    kind = f"webhook attempts {endpoint} {event}"
    after = _after(caller, kind, cursor)
    page = await _read(caller, lambda it: webhook_attempts(it, endpoint, event=event, after=after, limit=limit))
    return WebhookAttemptPage(items=[_attempt(row) for row in page.rows], next=_next(caller, kind, page))


@router.get("/webhooks/{endpoint}/dead", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.VIEW)
async def list_dead_events(
    endpoint: EndpointPath, caller: CallerParameter, cursor: CursorParameter = None, limit: Limit = DEFAULT_PAGE
) -> DeadEventPage:
    """List the events of an endpoint of which every attempt failed, the oldest first."""
    await require_endpoint(caller.parts.context, endpoint)
    kind = f"dead events {endpoint}"
    after = _after(caller, kind, cursor)
    page = await _read(caller, lambda it: dead_events(it, endpoint, after=after, limit=limit))
    return DeadEventPage(items=[_dead(row) for row in page.rows], next=_next(caller, kind, page))


def _after(caller: Caller, kind: str, cursor: str | None) -> str | None:
    key = caller.parts.cursors.read(kind, cursor)
    return str(key[0]) if key else None


def _next(caller: Caller, kind: str, page: Page[Row]) -> str | None:
    return caller.parts.cursors.sign(kind, [page.next]) if page.next is not None else None


async def _read(caller: Caller, look: Callable[[sa.Connection], Page[Row]]) -> Page[Row]:
    def in_read() -> Page[Row]:
        with read(caller.parts.context.engine) as connection:
            return look(connection)

    return await asyncio.to_thread(in_read)


def _attempt(row: LogRow) -> WebhookAttemptAnswer:
    return WebhookAttemptAnswer(
        id=row.id,
        event=row.message_id,
        type=row.type,
        attempt=row.attempt,
        at=row.at,
        duration_ms=row.duration_ms,
        outcome=WebhookOutcome(row.outcome),
        status=row.status,
        error=row.error,
    )


def _dead(row: DeadEvent) -> DeadEventAnswer:
    last = _attempt(row.last) if row.last is not None else None
    return DeadEventAnswer(event=row.delivery.message_id, since=row.delivery.created_at, last=last)


_ACT = problems(ProblemKind.NOT_FOUND, ProblemKind.CONFLICT)
_ACT_WITH_BODY = problems(*WITH_BODY, ProblemKind.NOT_FOUND, ProblemKind.CONFLICT)


@router.post("/webhooks/{endpoint}/redeliver", responses=_ACT_WITH_BODY)
@needs(AccessRole.OPERATE)
async def redeliver_events(endpoint: EndpointPath, wanted: RedeliverInput, caller: CallerParameter) -> EventsSentAgain:
    """Send single events of the log again. Their ids stay the same."""
    events = list(dict.fromkeys(wanted.events))
    what = events[0] if len(events) == 1 else f"{len(events):,} events"
    async with caller.act("webhook.redeliver", f"{endpoint}: {what}") as act:
        act.count = await redeliver(caller.parts.context, endpoint, events)
    return EventsSentAgain(endpoint=endpoint, events=act.count)


@router.post("/webhooks/{endpoint}/dead/resend", responses=_ACT)
@needs(AccessRole.OPERATE)
async def resend_dead_events(endpoint: EndpointPath, caller: CallerParameter) -> EventsSentAgain:
    """Send the dead events of an endpoint again, with all their attempts; the oldest 500 in one call."""
    async with caller.act("webhook.resend", endpoint) as act:
        act.count = await resend_dead(caller.parts.context, endpoint)
    return EventsSentAgain(endpoint=endpoint, events=act.count)


@router.post("/webhooks/{endpoint}/replay", responses=_ACT_WITH_BODY)
@needs(AccessRole.OPERATE)
async def replay_webhook(
    endpoint: EndpointPath, wanted: WebhookReplayInput, caller: CallerParameter
) -> WebhookReplayAnswer:
    """Send all events since a time again, in the order in which they were recorded. Their ids stay the same."""
    note = f"since {wanted.since:%Y-%m-%d %H:%M:%S} UTC"
    async with caller.act("webhook.replay", endpoint, note=note) as act:
        begun = await replay_events(caller.parts.context, endpoint, wanted.since)
        act.count = begun.until - begun.after
    return WebhookReplayAnswer(endpoint=endpoint, recorded_events=act.count)


@router.post("/webhooks/{endpoint}/disable", responses=_ACT_WITH_BODY)
@needs(AccessRole.OPERATE)
async def disable_webhook(endpoint: EndpointPath, wanted: DisableInput, caller: CallerParameter) -> EnabledAnswer:
    """Disable an endpoint. It gets no event, and its backlog waits."""
    by = f"by {caller.name[:40]}" + (f": {wanted.reason}" if wanted.reason else "")
    async with caller.act("webhook.disable", endpoint, note=wanted.reason) as act:
        changed = await set_enabled(caller.parts.context, endpoint, enabled=False, why=by)
        act.count = int(changed)
    return EnabledAnswer(endpoint=endpoint, status=EndpointStatus.DISABLED, changed=changed)


@router.post("/webhooks/{endpoint}/enable", responses=_ACT)
@needs(AccessRole.OPERATE)
async def enable_webhook(endpoint: EndpointPath, caller: CallerParameter) -> EnabledAnswer:
    """Enable an endpoint. It gets its backlog from where it stopped."""
    async with caller.act("webhook.enable", endpoint) as act:
        changed = await set_enabled(caller.parts.context, endpoint, enabled=True)
        act.count = int(changed)
    return EnabledAnswer(endpoint=endpoint, status=EndpointStatus.ENABLED, changed=changed)


@router.post("/webhooks/{endpoint}/test", responses=_ACT)
@needs(AccessRole.OPERATE)
async def test_webhook(endpoint: EndpointPath, caller: CallerParameter) -> WebhookTestAnswer:
    """Send an event of the type `postroad.test` at once, also to a disabled endpoint, and return the response."""
    named_endpoint(caller.parts.context, endpoint)
    async with caller.act("webhook.test", endpoint, first=True):
        event, answer = await send_test(caller.parts.context, endpoint)
    return WebhookTestAnswer(
        endpoint=endpoint,
        event=event,
        outcome=answer.outcome,
        status=answer.status,
        duration_ms=answer.duration_ms,
        error=answer.error,
    )
