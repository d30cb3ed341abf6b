"""Deliveries end to end: feeder, queue, worker, receiver, log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.clock import SystemClock
from postroad.dns.resolver import Resolver
from postroad.event_types import DEFAULT_EVENTS
from postroad.events_out import handler as module
from postroad.events_out.client import EndpointClient, WebhookAnswer, WebhookOutcome
from postroad.events_out.feeder import WebhookFeeder
from postroad.events_out.handler import MAX_PAUSE_MS, WebhookHandler, WebhookTarget, decide
from postroad.events_out.job import gate_of, job_id
from postroad.events_out.signature import WebhookSigner
from postroad.events_out.status import EndpointStatus, endpoint_reports
from postroad.queue import Defer, Done, JobState, Queue, Retry, Worker, WorkerOptions
from postroad.settings.webhooks_out import WebhookEndpointSettings
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.retention import Before, delete_old
from postroad.store.webhook_log import LoggedAttempt, LogRow, delete_old_log, log_attempts, log_page
from postroad.store.webhook_out import OpenDelivery, WebhookDeliveryState, enable_endpoint, open_deliveries
from tests.events_out.conftest import RETRY
from tests.events_out.events import add_events, add_sent_touch
from tests.events_out.receiver import SECRET, Receiver, hang, receiving, status
from tests.kit.waiting import until
from tests.store.rows import NOW

NOW_REAL = datetime(2030, 1, 1, tzinfo=UTC)


def settings_of(receivers: Mapping[str, Receiver], timeout_ms: int = 15_000) -> dict[str, WebhookEndpointSettings]:
    return {
        name: WebhookEndpointSettings(
            url=f"{receiver.url}?key=secret",
            secret=SecretStr(SECRET),
            allow_networks=("127.0.0.0/8",),
            timeout_ms=timeout_ms,
        )
        for name, receiver in receivers.items()
    }


class Running:
    """A feeder and a worker for some endpoints."""

    def __init__(self, engine: sa.Engine, queue: Queue, settings: Mapping[str, WebhookEndpointSettings]) -> None:
        self.engine = engine
        self.queue = queue
        self.settings = settings
        wanted = dict.fromkeys(settings, frozenset(DEFAULT_EVENTS))
        self.feeder = WebhookFeeder(
            engine=engine, queue=queue, clock=SystemClock(), subscriptions=wanted, keep_ms=86_400_000
        )

    async def feed(self) -> None:
        while await self.feeder.feed_once():
            pass

    def log(self, endpoint: str | None = None) -> list[LogRow]:
        with read(self.engine) as connection:
            return log_page(connection, endpoint=endpoint, message_id=None, before=None, limit=1_000)

    def open(self, endpoint: str, state: WebhookDeliveryState = WebhookDeliveryState.WAITING) -> list[OpenDelivery]:
        with read(self.engine) as connection:
            return open_deliveries(connection, endpoint, state)

    async def until_delivered(self, endpoint: str) -> None:
        await until(lambda: not self.open(endpoint), every_s=0.02)

    def add(self, number: int, touch: int | None = None, **values: object) -> int:
        with write(self.engine) as connection:
            touch = touch if touch is not None else add_sent_touch(connection)
            add_events(connection, touch, number, **values)
        return touch


@asynccontextmanager
async def running(
    engine: sa.Engine,
    queue: Queue,
    resolver: Resolver,
    receivers: Mapping[str, Receiver],
    *,
    attempts: int = 3,
    timeout_ms: int = 15_000,
) -> AsyncIterator[Running]:
    settings = settings_of(receivers, timeout_ms)
    async with AsyncExitStack() as stack:
        endpoints = {
            name: WebhookTarget(
                await stack.enter_async_context(EndpointClient(name, given, resolver)), WebhookSigner([SECRET])
            )
            for name, given in settings.items()
        }
        handler = WebhookHandler(
            engine=engine, queue=queue, clock=SystemClock(), endpoints=endpoints, attempts=attempts
        )
        stack.push_async_callback(handler.aclose)
        worker = Worker(queue, handler, prepare=handler.prepare, options=WorkerOptions(idle_ms=10, drain_ms=2_000))
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        parts = Running(engine, queue, settings)
        await parts.feed()
        try:
            yield parts
        finally:
            stop.set()
            await task


async def test_each_event_arrives_signed_with_its_id_and_is_logged(
    engine: sa.Engine, queue: Queue, resolver: Resolver
) -> None:
    async with receiving() as receiver, running(engine, queue, resolver, {"shop": receiver}) as parts:
        touch = parts.add(30)
        parts.add(1, touch, state=TouchState.BOUNCED, reply_code=550, enhanced_code="5.1.1", cause="no-mailbox")
        await parts.feed()
        await parts.until_delivered("shop")
        assert len(receiver.requests) == len(set(receiver.ids)) == 31
        [bounce] = [body for _, body in receiver.requests if body["type"] == "message.bounced"]
        assert bounce["id"] in receiver.ids
        assert bounce["data"]["enhanced_code"] == "5.1.1"
        assert bounce["timestamp"] == "2026-05-04T08:30:00Z"
        assert {(row.outcome, row.status, row.attempt) for row in parts.log()} == {("delivered", 204, 1)}
        assert {row.message_id for row in parts.log("shop")} == set(receiver.ids)
        [report] = endpoint_reports(engine, parts.settings, NOW_REAL)
        assert (report.status, report.lag_s, report.waiting) == (EndpointStatus.ENABLED, 0.0, 0)
        assert "secret" not in report.url


async def test_a_failure_is_retried_with_the_same_id_and_then_dead(
    engine: sa.Engine, queue: Queue, resolver: Resolver
) -> None:
    async with receiving() as receiver, running(engine, queue, resolver, {"shop": receiver}) as parts:
        receiver.default = status("500 Internal Server Error", body="broken \0 \udc80")
        parts.add(1)
        await parts.feed()
        [delivery] = await until(lambda: parts.open("shop", WebhookDeliveryState.DEAD), every_s=0.02)
        assert len(set(receiver.ids)) == 1
        assert [row.attempt for row in parts.log()] == [3, 2, 1]
        assert (parts.log()[0].error or "").startswith("broken ")
        await until(lambda: _is(queue, delivery, JobState.DEAD), every_s=0.02)
        [report] = endpoint_reports(engine, parts.settings, NOW_REAL)
        assert report.dead == 1
        receiver.default = status("200 OK")
        assert await queue.replay([job_id(delivery)]) == 1
        await until(lambda: not parts.open("shop", WebhookDeliveryState.DEAD), every_s=0.02)
        assert len(set(receiver.ids)) == 1


async def _is(queue: Queue, delivery: OpenDelivery, state: JobState) -> bool:
    return await queue.states([job_id(delivery)]) == [state]


async def test_an_endpoint_that_hangs_delays_no_other(engine: sa.Engine, queue: Queue, resolver: Resolver) -> None:
    async with receiving() as slow, receiving() as quick:
        slow.default = hang
        async with running(engine, queue, resolver, {"slow": slow, "quick": quick}, attempts=100) as parts:
            parts.add(3)
            await parts.feed()
            await parts.until_delivered("quick")
            assert len(quick.requests) == 3
            assert len(parts.open("slow")) == 3


async def test_gone_disables_and_enabling_delivers_the_backlog(
    engine: sa.Engine, queue: Queue, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISABLED_DELAY_MS", 20)
    async with receiving() as receiver, running(engine, queue, resolver, {"shop": receiver}) as parts:
        receiver.default = status("410 Gone")
        touch = parts.add(1)
        await parts.feed()
        await until(lambda: endpoint_reports(engine, parts.settings, NOW_REAL)[0].disabled_for, every_s=0.02)
        await until(lambda: _paused(queue, "shop"), every_s=0.02)
        parts.add(5, touch)
        await parts.feed()
        requests = len(receiver.requests)
        await asyncio.sleep(0.3)
        assert len(receiver.requests) == requests
        receiver.default = status("200 OK")
        with write(engine) as connection:
            assert enable_endpoint(connection, "shop")
        await parts.feeder.resync()
        await parts.feed()
        await parts.until_delivered("shop")
        assert len(set(receiver.ids)) == 6


async def _paused(queue: Queue, endpoint: str) -> bool:
    return gate_of(endpoint) in (await queue.stats()).paused_groups


async def test_retry_after_pauses_the_endpoint_and_uses_no_attempt(
    engine: sa.Engine, queue: Queue, resolver: Resolver
) -> None:
    async with receiving() as receiver, running(engine, queue, resolver, {"shop": receiver}, attempts=1) as parts:
        receiver.answers = [status("429 Slow Down", "Retry-After: 1")]
        parts.add(1)
        await parts.feed()
        await until(lambda: len(receiver.requests) == 1)
        began = asyncio.get_running_loop().time()
        parts.add(1)
        await parts.feed()
        await parts.until_delivered("shop")
        assert asyncio.get_running_loop().time() - began > 0.7
        assert len(set(receiver.ids)) == 2
        assert parts.open("shop", WebhookDeliveryState.DEAD) == []


async def test_deleted_events_and_removed_endpoints_end_their_jobs(
    engine: sa.Engine, queue: Queue, resolver: Resolver
) -> None:
    async with receiving() as receiver:
        parts = Running(engine, queue, settings_of({"shop": receiver, "old": receiver}))
        await parts.feed()
        parts.add(2)
        await parts.feed()
        delete_old(engine, Before(touches=NOW, events=NOW_REAL, bounce_effects=NOW), NOW_REAL)
        async with running(engine, queue, resolver, {"shop": receiver}) as now:
            await now.until_delivered("shop")
            await now.until_delivered("old")
            await until(lambda: _is_empty(queue), every_s=0.02)
        assert receiver.requests == []
        assert (await queue.stats()).dead == 0


async def _is_empty(queue: Queue) -> bool:
    stats = await queue.stats()
    return stats.queued + stats.scheduled + stats.in_flight == 0


async def test_the_log_ends_with_its_retention(engine: sa.Engine, queue: Queue, resolver: Resolver) -> None:
    async with receiving() as receiver, running(engine, queue, resolver, {"shop": receiver}, timeout_ms=1_000) as parts:
        parts.add(3)
        await parts.feed()
        await parts.until_delivered("shop")
        assert delete_old_log(engine, NOW) == 0
        receiver.default = hang
        parts.add(1)
        await parts.feed()
        await until(lambda: len(parts.log()) > 3, every_s=0.02)
        assert delete_old_log(engine, NOW_REAL) >= 7
        assert len(parts.open("shop")) <= 1  # What waits is kept.


def test_pages_of_the_log_follow_each_other(engine: sa.Engine) -> None:
    rows = [
        LoggedAttempt(name, f"evt_{n}", "message.accepted", 1, NOW, n, "delivered", 204, None)
        for n in range(10)
        for name in ("one", "two")
    ]
    with write(engine) as connection:
        log_attempts(connection, rows)
    seen: list[LogRow] = []
    with read(engine) as connection:
        while page := log_page(
            connection, endpoint="one", message_id=None, before=seen[-1].id if seen else None, limit=3
        ):
            seen += page
        assert [row.duration_ms for row in seen] == list(range(9, -1, -1))
        assert seen[0].at == NOW
        both = log_page(connection, endpoint=None, message_id="evt_4", before=None, limit=10)
        assert {row.endpoint for row in both} == {"one", "two"}


def answer(outcome: WebhookOutcome, code: int | None = None, after_s: float | None = None) -> WebhookAnswer:
    return WebhookAnswer(outcome, NOW, 5, code, "why", after_s)


def test_each_outcome_has_its_consequence() -> None:
    def after(given: WebhookAnswer, attempt: int = 1, failures: int = 1) -> module.AfterAttempt:
        return decide(given, attempt=attempt, attempts=RETRY.attempts, failures=failures)

    assert after(answer(WebhookOutcome.DELIVERED, 200)) == (Done(), WebhookDeliveryState.DELIVERED, 0, None)
    gone = after(answer(WebhookOutcome.GONE, 410), attempt=3)
    assert isinstance(gone.verdict, Defer)
    assert gone.disable_for
    throttled = after(answer(WebhookOutcome.THROTTLED, 429, 30.0), attempt=3)
    assert isinstance(throttled.verdict, Defer)
    assert (throttled.state, throttled.pause_ms) == (None, 30_000)
    for outcome in set(WebhookOutcome) - {WebhookOutcome.DELIVERED, WebhookOutcome.GONE, WebhookOutcome.THROTTLED}:
        early, last = after(answer(outcome)), after(answer(outcome), attempt=3)
        assert isinstance(early.verdict, Retry)
        assert (early.state, last.state) == (None, WebhookDeliveryState.DEAD)
    pauses = [after(answer(WebhookOutcome.TIMEOUT), failures=n).pause_ms for n in (1, 4, 5, 6, 7, 50, 5_000)]
    assert pauses == [0, 0, 1_000, 2_000, 4_000, MAX_PAUSE_MS, MAX_PAUSE_MS]
