"""What commands, console and API call: a worker and a feeder as the settings say, redelivery, replay, export."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.app.context import AppContext, open_context
from postroad.app.events import EventSelection, export
from postroad.app.webhooks import (
    feeder,
    list_endpoints,
    redeliver,
    replay_events,
    replayed,
    send_test,
    set_enabled,
    webhook_log,
)
from postroad.app.worker import open_worker
from postroad.errors import StateError, UnavailableError, UsageError
from postroad.events_out.export import EventFormat
from postroad.events_out.status import EndpointStatus
from postroad.queue import Queue
from postroad.queue.metrics import QueueMetrics
from postroad.queue.redis.client import connect
from postroad.settings import Settings
from postroad.settings.queues import WEBHOOK_QUEUE
from postroad.store.engine import write, write_connection
from tests.conftest import RedisServer
from tests.events_out.events import AT_MS, add_events, add_sent_touch
from tests.events_out.receiver import SECRET, Receiver, receiving, status
from tests.kit.waiting import until
from tests.store.rows import NOW

pytestmark = pytest.mark.parametrize("own_redis", ["valkey"], indirect=True)
HOUR_MS = 3_600_000
SETTINGS = """
database_url = "{database}"
redis_url = "{redis}"
[webhooks_out.shop]
url = "{url}"
allow_networks = ["127.0.0.0/8"]
secret = "{secret}"
"""


class Parts:
    """A context, a running worker, and the receiver of its endpoint."""

    def __init__(self, context: AppContext, queue: Queue, receiver: Receiver) -> None:
        self.context = context
        self.queue = queue
        self.receiver = receiver

    def add(self, number: int, **values: object) -> None:
        with write(self.context.engine) as connection:
            add_events(connection, add_sent_touch(connection), number, **values)

    async def feed(self) -> None:
        fed = await feeder(self.context)
        while await fed.feed_once():
            pass

    async def until_received(self, number: int) -> None:
        await until(lambda: len(self.receiver.requests) >= number, every_s=0.02)


@pytest.fixture
def settings_path(database_url: str, own_redis: RedisServer, tmp_path: Path) -> Path:
    path = tmp_path / "postroad.toml"
    path.write_text(SETTINGS.format(database=database_url, redis=own_redis.url, secret=SECRET, url="{url}"))
    return path


@asynccontextmanager
async def running(settings_path: Path) -> AsyncIterator[Parts]:
    metrics = QueueMetrics()
    async with receiving() as receiver:
        settings_path.write_text(settings_path.read_text().replace("{url}", receiver.url))
        settings = Settings.load(settings_path)
        async with open_context(settings, metrics=metrics) as context:
            queue = await context.queue(WEBHOOK_QUEUE)
            async with open_worker(context, queue, settings.queue(WEBHOOK_QUEUE), name="w", idle_ms=10) as worker:
                stop = asyncio.Event()
                task = asyncio.create_task(worker.run(stop))
                parts = Parts(context, queue, receiver)
                await parts.feed()
                try:
                    yield parts
                finally:
                    stop.set()
                    await task
            assert await queue.audit() == []
        assert "postroad_webhook_attempts_total" in metrics.text().decode() or not receiver.requests


async def test_a_replay_repeats_events_with_their_ids_and_newer_ones_follow(settings_path: Path) -> None:
    async with running(settings_path) as parts:
        for hours in range(6):
            parts.add(1, at_ms=AT_MS + hours * HOUR_MS)
        await parts.feed()
        await parts.until_received(6)
        first = [*parts.receiver.ids]
        begun = await replay_events(parts.context, "shop", NOW + timedelta(hours=2))
        assert begun.until - begun.after == 4
        parts.add(1, at_ms=AT_MS + 9 * HOUR_MS)
        await parts.feed()
        await parts.until_received(11)
        assert await replayed(parts.context, "shop") == begun.until + 1
        counts = Counter(parts.receiver.ids)
        assert sorted(counts.values()) == [1, 1, 1, 2, 2, 2, 2]
        assert set(first) < set(counts)


async def test_an_event_is_delivered_again_as_often_as_it_is_asked_for(settings_path: Path) -> None:
    async with running(settings_path) as parts:
        parts.add(2)
        await parts.feed()
        await parts.until_received(2)
        event = parts.receiver.ids[0]
        for number in (3, 4):
            assert await redeliver(parts.context, "shop", [event, event]) == 1
            await parts.until_received(number)
        assert Counter(parts.receiver.ids)[event] == 3
        with pytest.raises(StateError, match="evt_unknown"):
            await redeliver(parts.context, "shop", [event, "evt_unknown"])
        parts.add(1)
        await parts.feed()
        await parts.until_received(5)
        log = await webhook_log(parts.context, endpoint="shop", message_id=event, before=None, limit=10)
        assert len(log) == 3
        with pytest.raises(StateError, match="shpo"):
            await webhook_log(parts.context, endpoint="shpo", message_id=None, before=None, limit=1)


async def test_a_disabled_endpoint_gets_its_backlog_when_it_is_enabled(settings_path: Path) -> None:
    async with running(settings_path) as parts:
        assert await set_enabled(parts.context, "shop", enabled=False, why="moving")
        parts.add(5)
        await parts.feed()
        [report] = await list_endpoints(parts.context)
        assert (report.status, report.disabled_for, report.waiting) == (EndpointStatus.DISABLED, "moving", 0)
        assert report.lag_s > 0
        assert await set_enabled(parts.context, "shop", enabled=True)
        await parts.feed()
        await parts.until_received(5)
        assert parts.receiver.requests[0][1]["data"]["sender"] == "news@example.com"


async def test_a_test_event_is_sent_at_once_and_logged(settings_path: Path) -> None:
    async with running(settings_path) as parts:
        parts.receiver.default = status("503 Busy")
        event, answer = await send_test(parts.context, "shop")
        assert (answer.outcome, answer.status) == ("rejected", 503)
        [row] = await webhook_log(parts.context, endpoint="shop", message_id=event, before=None, limit=10)
        assert (row.type, row.status) == ("postroad.test", 503)


async def test_a_lost_queue_is_filled_again_from_the_ledger(settings_path: Path, own_redis: RedisServer) -> None:
    async with running(settings_path) as parts:
        assert await set_enabled(parts.context, "shop", enabled=False)
    settings = Settings.load(settings_path)
    async with open_context(settings) as context:
        fed = await feeder(context)
        with write(context.engine) as connection:
            connection.execute(sa.text("UPDATE webhook_endpoint SET disabled_at = NULL"))
            add_events(connection, add_sent_touch(connection), 4)
        while await fed.feed_once():
            pass
        queue = await context.queue(WEBHOOK_QUEUE)
        assert (await queue.stats()).queued == 4
        client = connect(own_redis.url)
        await client.flushall()
        await client.aclose()
        assert await fed.resync() == 4
        assert (await queue.stats()).queued == 4


async def test_an_export_waits_for_open_transactions_and_names_them(
    settings_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroad.app.events.HORIZON_WITHIN_S", 0.2)
    async with running(settings_path) as parts:
        parts.add(3)
        engine = parts.context.engine
        output = BytesIO()
        done = await export(parts.context, output, EventFormat.NDJSON, EventSelection(after=0))
        assert done.events == 3
        assert len({json.loads(line)["id"] for line in output.getvalue().splitlines()}) == 3
        with pytest.raises(UsageError, match="beyond the last event"):
            await export(parts.context, BytesIO(), EventFormat.NDJSON, EventSelection(after=done.cursor + 1))
        if engine.dialect.name == "sqlite":
            return
        slow = write_connection(engine)
        transaction = slow.begin()
        add_events(slow, add_sent_touch(slow), 1)
        parts.add(1)
        with pytest.raises(UnavailableError, match="a transaction"):
            await export(parts.context, BytesIO(), EventFormat.NDJSON, EventSelection(after=done.cursor))
        transaction.commit()
        slow.close()
        more = await export(parts.context, BytesIO(), EventFormat.NDJSON, EventSelection(after=done.cursor))
        assert more.events == 2
