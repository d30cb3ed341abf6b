"""Events to endpoints: feeds, sends, lists, redelivers and replays them. Commands, console and API call this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import NamedTuple
from uuid import uuid4

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.errors import StateError, unknown_name
from postroad.events_out.body import TEST_TYPE, encode_body, test_body
from postroad.events_out.client import EndpointClient, WebhookAnswer
from postroad.events_out.feeder import WebhookFeeder
from postroad.events_out.handler import WebhookHandler, WebhookTarget
from postroad.events_out.job import WEBHOOK_QUEUE, gate_of, job_of, lane_of
from postroad.events_out.metrics import AttemptMetrics, EndpointMetrics
from postroad.events_out.signature import WebhookSigner, load_ring
from postroad.events_out.status import EndpointReport, endpoint_reports
from postroad.queue import Gate, Queue
from postroad.settings import QueueSettings
from postroad.settings.webhooks_out import WebhookEndpointSettings
from postroad.store.engine import read, write
from postroad.store.event_stream import event_before
from postroad.store.webhook_log import LoggedAttempt, LogRow, log_attempts, log_page
from postroad.store.webhook_out import (
    EndpointState,
    NewDelivery,
    OpenDelivery,
    add_deliveries,
    disable_endpoint,
    enable_endpoint,
    endpoint_states,
    event_of_delivery,
    lock_endpoint,
    set_cursor,
)


class Replay(NamedTuple):
    """A replay that began. ``after``: id of the last event that is not sent again. ``until``: where it ends."""

    after: int
    until: int


def endpoint_gates(context: AppContext) -> list[Gate]:
    """Return the gates of the endpoints, which limit their concurrent requests."""
    endpoints = context.settings.webhooks_out
    return [Gate(name=gate_of(name), concurrency=endpoint.concurrency) for name, endpoint in endpoints.items()]


@asynccontextmanager
async def open_webhook_handler(
    context: AppContext, queue: Queue, limits: QueueSettings
) -> AsyncIterator[WebhookHandler]:
    """Open what sends events to the endpoints of the settings.

    Raises:
        ConfigError: A file of secrets or of authorities cannot be used.
    """
    async with AsyncExitStack() as stack:
        endpoints = {
            name: await _open_endpoint(context, stack, name, settings)
            for name, settings in context.settings.webhooks_out.items()
        }
        count = AttemptMetrics(context.metrics.registry).count if context.metrics is not None else None
        handler = WebhookHandler(
            engine=context.engine,
            queue=queue,
            clock=context.clock,
            endpoints=endpoints,
            attempts=limits.attempts,
            count=count,
        )
        stack.push_async_callback(handler.aclose)
        yield handler


async def _open_endpoint(
    context: AppContext, stack: AsyncExitStack, name: str, settings: WebhookEndpointSettings
) -> WebhookTarget:
    signer = WebhookSigner(await asyncio.to_thread(load_ring, name, settings))
    client = await stack.enter_async_context(EndpointClient(name, settings, await context.resolver()))
    return WebhookTarget(client, signer)


async def feeder(context: AppContext) -> WebhookFeeder:
    """Return what feeds the endpoints of the settings. Raises UnavailableError."""
    settings = context.settings
    return WebhookFeeder(
        engine=context.engine,
        queue=await context.queue(WEBHOOK_QUEUE),
        clock=context.clock,
        subscriptions={name: frozenset(endpoint.events) for name, endpoint in settings.webhooks_out.items()},
        keep_ms=settings.retention.webhook_log_ms,
    )


async def feeding(context: AppContext) -> Sequence[Callable[[], Coroutine[object, object, None]]]:
    """Return the endless work of a recorder that feeds endpoints: none without an endpoint. Raises UnavailableError."""
    endpoints = context.settings.webhooks_out
    if not endpoints:
        return []
    work: list[Callable[[], Coroutine[object, object, None]]] = [(await feeder(context)).run_forever]
    if context.metrics is not None:
        metrics = EndpointMetrics(context.metrics.registry)
        work.append(lambda: metrics.refresh_forever(context.engine, endpoints, context.clock))
    return work


async def list_endpoints(context: AppContext) -> list[EndpointReport]:
    """Return the state of each endpoint. Raises UnavailableError."""
    return await asyncio.to_thread(endpoint_reports, context.engine, context.settings.webhooks_out, context.clock.now())


async def webhook_log(
    context: AppContext, *, endpoint: str | None, message_id: str | None, before: int | None, limit: int
) -> list[LogRow]:
    """Return a page of the log, the newest first. See `log_page`.

    Raises:
        StateError: There is no such endpoint, or its log has no such event.
        UnavailableError: The database does not answer.
    """
    if endpoint is not None:
        await require_endpoint(context, endpoint)

    def find() -> list[LogRow]:
        with read(context.engine) as connection:
            return log_page(connection, endpoint=endpoint, message_id=message_id, before=before, limit=limit)

    found = await asyncio.to_thread(find)
    if not found and message_id is not None and before is None:
        raise StateError(
            f"the log has no attempt of event {message_id}",
            remedy="Its retention may be over, or the event waits. `postroad webhook log` lists all attempts.",
        )
    return found


async def require_endpoint(context: AppContext, name: str) -> None:
    """Check that the settings or the ledger have an endpoint with this name. Raises StateError, UnavailableError."""
    known = {report.name for report in await list_endpoints(context)}
    if name not in known:
        raise unknown_name("webhook endpoint", name, known, listed_by="postroad webhook list")


def named_endpoint(context: AppContext, name: str) -> WebhookEndpointSettings:
    """Return the settings of an endpoint. Raises StateError if the settings do not name it."""
    endpoints = context.settings.webhooks_out
    if name not in endpoints:
        raise unknown_name("webhook endpoint", name, endpoints, listed_by="postroad webhook list")
    return endpoints[name]


async def send_test(context: AppContext, name: str) -> tuple[str, WebhookAnswer]:
    """Send a test event to an endpoint at once, also to a disabled one, and log the attempt.

    Returns:
        The id of the event, and the result.

    Raises:
        StateError: There is no such endpoint.
        ConfigError: A file of its settings cannot be used.
        UnavailableError: The database does not answer.
    """
    settings = named_endpoint(context, name)
    message_id = f"test_{uuid4().hex}"
    body = encode_body(test_body(message_id, name, context.clock.now()))
    async with AsyncExitStack() as stack:
        endpoint = await _open_endpoint(context, stack, name, settings)
        answer = await endpoint.client.post(body, endpoint.signer.headers(message_id, context.clock.now(), body))

    def keep() -> None:
        attempt = LoggedAttempt(
            name,
            message_id,
            TEST_TYPE,
            1,
            answer.at,
            answer.duration_ms,
            answer.outcome,
            answer.status,
            answer.error,
        )
        with write(context.engine) as connection:
            log_attempts(connection, [attempt])

    await asyncio.to_thread(keep)
    return message_id, answer


async def redeliver(context: AppContext, name: str, message_ids: Sequence[str]) -> int:
    """Send events again to an endpoint that had got them, or whose attempts failed. Their ids stay the same.

    Args:
        context: The open parts.
        name: The endpoint.
        message_ids: Ids of events in its log.

    Returns:
        How many are sent again.

    Raises:
        StateError: There is no such endpoint, or an event is not in its log. Nothing is sent then.
        UnavailableError: The database or the queue does not answer.
    """
    named_endpoint(context, name)

    def insert() -> list[OpenDelivery]:
        with write(context.engine) as connection:
            state = _locked(connection, name)
            events = []
            for message_id in dict.fromkeys(message_ids):
                event_id = event_of_delivery(connection, name, message_id)
                if event_id is None:
                    raise StateError(
                        f"the log of {name} has no event {message_id}",
                        remedy="Nothing was sent. `postroad webhook log` lists events; `replay` sends older ones.",
                    )
                events.append(NewDelivery(event_id, message_id))
            set_cursor(connection, name, state.cursor, state.round + 1)
            return add_deliveries(connection, name, state.round + 1, events, context.clock.now())

    deliveries = await asyncio.to_thread(insert)
    # If this fails, the feeder enqueues them.
    await (await context.queue(WEBHOOK_QUEUE)).enqueue(lane_of(name), [job_of(delivery) for delivery in deliveries])
    return len(deliveries)


async def replay_events(context: AppContext, name: str, since: datetime) -> Replay:
    """Move the cursor of an endpoint back, so that it gets all events since a time again. Their ids stay the same.

    Args:
        context: The open parts.
        name: The endpoint.
        since: The time. A time before the first event: all events.

    Returns:
        Where the replay begins and ends. It is over when the cursor of the endpoint has passed its end.

    Raises:
        StateError: There is no such endpoint, or no recorder has seen it yet.
        UnavailableError: The database does not answer.
    """
    named_endpoint(context, name)

    def rewind() -> Replay:
        with read(context.engine) as connection:
            after = event_before(connection, since)
        with write(context.engine) as connection:
            state = _locked(connection, name)
            set_cursor(connection, name, min(after, state.cursor), state.round + 1)
            return Replay(min(after, state.cursor), state.cursor)

    return await asyncio.to_thread(rewind)


async def replay_extent(context: AppContext, name: str, since: datetime) -> Replay:
    """Return what a replay of all events since a time would send again. Nothing is changed.

    Raises:
        StateError: There is no such endpoint, or no recorder has seen it yet.
        UnavailableError: The database does not answer.
    """
    named_endpoint(context, name)

    def look() -> Replay:
        with read(context.engine) as connection:
            state = _require_seen(name, endpoint_states(connection).get(name))
            return Replay(min(event_before(connection, since), state.cursor), state.cursor)

    return await asyncio.to_thread(look)


async def replayed(context: AppContext, name: str) -> int:
    """Return the id of the last event that an endpoint has read. Raises UnavailableError, StateError."""

    def cursor() -> int:
        with read(context.engine) as connection:
            return _locked(connection, name).cursor

    return await asyncio.to_thread(cursor)


async def set_enabled(context: AppContext, name: str, *, enabled: bool, why: str = "") -> bool:
    """Enable or disable an endpoint. A disabled one gets no event; its backlog waits.

    Args:
        context: The open parts.
        name: The endpoint.
        enabled: True: enable it. False: disable it.
        why: Why it is disabled.

    Returns:
        Whether this changed anything.

    Raises:
        StateError: There is no such endpoint, or no recorder has seen it yet.
        UnavailableError: The database or the queue does not answer.
    """
    named_endpoint(context, name)

    def change() -> bool:
        with write(context.engine) as connection:
            _locked(connection, name)
            if enabled:
                return enable_endpoint(connection, name)
            return disable_endpoint(connection, name, why, context.clock.now())

    changed = await asyncio.to_thread(change)
    queue = await context.queue(WEBHOOK_QUEUE)
    await (queue.resume_group(gate_of(name)) if enabled else queue.pause_group(gate_of(name)))
    return changed


def _locked(connection: sa.Connection, name: str) -> EndpointState:
    return _require_seen(name, lock_endpoint(connection, name))


def _require_seen(name: str, state: EndpointState | None) -> EndpointState:
    if state is None:
        raise StateError(
            f"no recorder has seen the webhook endpoint {name} yet",
            remedy="Start `postroad recorder` with these settings, or everything with `postroad up`.",
        )
    return state
