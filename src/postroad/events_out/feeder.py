"""Feeds endpoints: moves each one's cursor over the stream of events, and enqueues what it is to get.

A step is one transaction: it locks the endpoint, inserts its deliveries and moves its cursor. The jobs are enqueued
after it. If the process dies in between, `WebhookFeeder.resync` enqueues them: it finds deliveries that wait and have
no job, also after the queue's server lost its data. Any number of feeders may run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from postroad.clock import Clock
from postroad.errors import UnavailableError
from postroad.event_types import EventType
from postroad.events_out.job import gate_of, job_id, job_of, lane_of
from postroad.queue import JobState, Queue
from postroad.store.engine import read, write
from postroad.store.event_stream import PAGE, EventHorizon, newest_event, stream_page
from postroad.store.webhook_log import delete_old_log
from postroad.store.webhook_out import (
    MAX_WAITING,
    EndpointState,
    NewDelivery,
    OpenDelivery,
    WebhookDeliveryState,
    add_deliveries,
    add_endpoint,
    count_open,
    endpoint_states,
    lock_endpoint,
    open_deliveries,
    set_cursor,
    settle_deliveries,
)

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""Poll interval while there is no new event."""
HORIZON_S: Final = 0.05
"""Poll interval while a transaction that may insert events is open."""
RESYNC_S: Final = 30.0
DELETE_S: Final = 3_600.0
RETRY_S: Final = 5.0

Subscriptions = Mapping[str, frozenset[EventType]]
"""Types of events by endpoint."""


class WebhookFeeder:
    """Feeds the endpoints of the settings. Idempotent; it may be killed at any time."""

    def __init__(
        self, *, engine: sa.Engine, queue: Queue, clock: Clock, subscriptions: Subscriptions, keep_ms: int
    ) -> None:
        """Store the dependencies.

        Args:
            engine: The ledger's database.
            queue: The queue `webhook:out`.
            clock: The time.
            subscriptions: Types of events of each endpoint.
            keep_ms: How long the log is kept, in ms.
        """
        self._engine = engine
        self._queue = queue
        self._clock = clock
        self._subscriptions = subscriptions
        self._keep = timedelta(milliseconds=keep_ms)
        self._horizon = EventHorizon()
        self._waits_for_writers = False

    async def run_forever(self) -> None:
        """Feed until cancelled. While the database or the queue is unavailable, wait."""
        resync_at = delete_at = time.monotonic()
        failed = False
        while True:
            try:
                if time.monotonic() >= resync_at:
                    await self.resync()
                    resync_at = time.monotonic() + RESYNC_S
                if time.monotonic() >= delete_at:
                    await asyncio.to_thread(delete_old_log, self._engine, self._clock.now() - self._keep)
                    delete_at = time.monotonic() + DELETE_S
                fed = await self.feed_once()
                failed = False
            except UnavailableError as error:
                if not failed:
                    log.warning("feeding of webhooks waits: %s", error.message)
                failed, resync_at = True, 0.0  # What was inserted and not enqueued is enqueued first.
                await asyncio.sleep(RETRY_S)
                continue
            if not fed:
                await asyncio.sleep(HORIZON_S if self._waits_for_writers else POLL_S)

    async def feed_once(self) -> int:
        """Give each endpoint its next events, at most a page.

        Returns:
            How many rows of the stream were read.

        Raises:
            UnavailableError: The database or the queue does not answer.
        """
        moved = 0
        for name, state, horizon in await asyncio.to_thread(self._find_pending):
            rows, deliveries = await asyncio.to_thread(self._step, name, state, horizon)
            moved += rows
            await self._enqueue(name, deliveries)
        return moved

    def _find_pending(self) -> list[tuple[str, EndpointState, int]]:
        """Return the enabled endpoints that have events to read, with the end of the readable stream."""
        with read(self._engine) as connection:
            states = endpoint_states(connection)
            newest = newest_event(connection)
        missing = self._subscriptions.keys() - states.keys()
        enabled = {
            name: states[name]
            for name in self._subscriptions
            if name in states and states[name].disabled_at is None and states[name].cursor < newest
        }
        self._waits_for_writers = False
        if not missing and not enabled:
            return []
        horizon = self._horizon.find(self._engine)
        self._waits_for_writers = self._horizon.is_waiting
        if missing and not self._waits_for_writers:
            # It gets the events from here on. An event of a transaction that is still open is among them.
            with write(self._engine) as connection:
                for name in sorted(missing):
                    add_endpoint(connection, name, horizon, self._clock.now())
        return [(name, state, horizon) for name, state in sorted(enabled.items()) if state.cursor < horizon]

    def _step(self, name: str, seen: EndpointState, horizon: int) -> tuple[int, list[OpenDelivery]]:
        """Move one cursor by at most a page. Returns the rows that were read, and the new deliveries."""
        with read(self._engine) as connection:
            waiting = count_open(connection, name, WebhookDeliveryState.WAITING, MAX_WAITING)
            limit = min(PAGE, MAX_WAITING - waiting)
            page = stream_page(connection, seen.cursor, horizon, limit) if limit > 0 else []
        if not page:
            return 0, []
        wanted = self._subscriptions[name]
        events = [NewDelivery(row.id, row.message_id) for row in page if row.type in wanted]
        with write(self._engine) as connection:
            state = lock_endpoint(connection, name)
            if state is None or state.cursor != seen.cursor or state.disabled_at is not None:
                return 0, []  # Another feeder, a replay, or its disabling came first.
            deliveries = add_deliveries(connection, name, state.round, events, self._clock.now())
            set_cursor(connection, name, page[-1].id, state.round)
        return len(page), deliveries

    async def _enqueue(self, name: str, deliveries: Sequence[OpenDelivery]) -> None:
        if deliveries:
            await self._queue.enqueue(lane_of(name), [job_of(delivery) for delivery in deliveries])

    async def resync(self) -> int:
        """Enqueue deliveries that wait and have no job, and pause the groups of the disabled endpoints, and no others.

        Returns:
            How many deliveries were enqueued.

        Raises:
            UnavailableError: The database or the queue does not answer.
        """
        with_pauses = await asyncio.to_thread(self._states)
        paused = set((await self._queue.stats()).paused_groups)
        enqueued = 0
        for name, state in with_pauses.items():
            group = gate_of(name)
            if state.disabled_at is not None and group not in paused:
                await self._queue.pause_group(group)
            elif state.disabled_at is None and group in paused:
                await self._queue.resume_group(group)
            enqueued += await self._resync_endpoint(name)
        return enqueued

    def _states(self) -> dict[str, EndpointState]:
        with read(self._engine) as connection:
            states = endpoint_states(connection)
        return {name: state for name, state in states.items() if name in self._subscriptions}

    async def _resync_endpoint(self, name: str) -> int:
        waiting = await asyncio.to_thread(self._waiting, name)
        if not waiting:
            return 0
        states = await self._queue.states([job_id(delivery) for delivery in waiting])
        with_states = list(zip(waiting, states, strict=True))
        lost = [delivery for delivery, state in with_states if state is None]
        await self._enqueue(name, lost)
        # A job that ended otherwise: a person cancelled it, or its handler failed in each attempt.
        for job_state, state in (
            (JobState.DEAD, WebhookDeliveryState.DEAD),
            (JobState.REMEMBERED, WebhookDeliveryState.CANCELLED),
        ):
            ended = [delivery.id for delivery, found in with_states if found is job_state]
            if ended:
                await asyncio.to_thread(self._settle, ended, state)
        return len(lost)

    def _waiting(self, name: str) -> list[OpenDelivery]:
        with read(self._engine) as connection:
            return open_deliveries(connection, name, WebhookDeliveryState.WAITING)

    def _settle(self, ids: Sequence[int], state: WebhookDeliveryState) -> None:
        with write(self._engine) as connection:
            settle_deliveries(connection, ids, state, self._clock.now())
