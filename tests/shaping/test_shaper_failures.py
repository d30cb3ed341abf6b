"""A shaper runs after errors, and loses no reply while the database or the queue is unavailable."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.errors import UnavailableError
from postroad.queue import Queue
from postroad.shaping.config import read_shaping
from postroad.shaping.shaper import Shaper
from postroad.store.engine import open_engine
from postroad.store.migrate import upgrade
from tests.conftest import RedisServer
from tests.kit.clock import FakeClock
from tests.shaping.shapers import BUSY, GMAIL, MINUTE_MS, TSS04, YAHOO, controller, gate, log, shaper


async def test_an_internal_error_does_not_end_the_shaper(
    engine: sa.Engine, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    worker = shaper(engine, queue, SystemClock())
    async with worker.running():
        worker.paused("g", YAHOO, "421 4.7.0 x", cause=None, everywhere=False, until_ms=None)  # type: ignore[arg-type]  # no table takes it
        async with asyncio.timeout(10):
            while "shaping waits" not in caplog.text:
                await asyncio.sleep(0.01)
        worker.refused(YAHOO, TSS04)
    assert [change.rule for change in log(engine)] == ["yahoo-deferral"]


async def test_no_reply_is_lost_while_the_database_is_unavailable(
    tmp_path: Path, engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    url = f"sqlite:///{tmp_path / 'no-tables.db'}"
    away = open_engine(url)
    gates = controller(engine, queue, clock)
    worker = Shaper(engine=away, gates=gates, shaping=read_shaping(None), clock=clock)
    worker.refused(YAHOO, TSS04)
    with pytest.raises(UnavailableError):
        await worker.run_once()
    upgrade(away)  # It is back.
    await worker.run_once()
    assert [change.rule for change in log(away)] == ["yahoo-deferral"]
    away.dispose()


async def test_a_change_is_applied_when_the_queue_returns(
    engine: sa.Engine, own_redis: RedisServer, clock: FakeClock
) -> None:
    async with Queue.open(own_redis.url, "shaping", clock=clock) as queue:
        worker = shaper(engine, queue, clock)
        own_redis.kill()
        worker.refused(YAHOO, TSS04)
        with pytest.raises(UnavailableError):
            await worker.run_once()
        own_redis.start()
        await worker.run_once()
        assert (await gate(queue, YAHOO.gate)).paused_until_ms == clock.now_ms() + 120 * MINUTE_MS
        assert len(log(engine)) == 1


async def test_replies_take_effect_at_once_and_the_last_is_stored(engine: sa.Engine, queue: Queue) -> None:
    worker = shaper(engine, queue, SystemClock())
    async with worker.running():
        worker.refused(YAHOO, TSS04)
        async with asyncio.timeout(10):
            while not (await gate(queue, YAHOO.gate)).paused_until_ms:
                await asyncio.sleep(0.01)
        worker.refused(GMAIL, BUSY)
    assert {change.rule for change in log(engine)} == {"yahoo-deferral", "busy"}
