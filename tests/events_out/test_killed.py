"""The commands as processes, which are killed again and again: no event is lost, and each keeps its one id."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.store.engine import open_engine, read, write
from postroad.store.event_stream import published_events
from postroad.store.webhook_out import endpoint_states
from tests.conftest import RedisServer
from tests.events_out.events import add_events, add_sent_touch, ids_of
from tests.events_out.receiver import SECRET, Receiver, receiving
from tests.kit.waiting import until

EVENTS, KILLS = 400, 5


def start(folder: Path, environment: Mapping[str, str], *words: str) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "postroad", *words], cwd=folder, env=dict(environment), stdout=log, stderr=log
        )


@pytest.mark.timeout(240)
@pytest.mark.parametrize("own_redis", ["valkey"], indirect=True)
async def test_every_event_arrives_though_feeder_and_worker_are_killed(
    database_url: str, own_redis: RedisServer, tmp_path: Path
) -> None:
    async with receiving() as receiver:
        (tmp_path / "postroad.toml").write_text(
            f'[webhooks_out.shop]\nurl = "{receiver.url}"\nallow_networks = ["127.0.0.0/8"]\n'
            '[queues."webhook:out"]\nlease_ms = "1s"\n'
        )
        environment = {
            **os.environ,
            "POSTROAD_CONFIG": str(tmp_path / "postroad.toml"),
            "POSTROAD_DATABASE_URL": database_url,
            "POSTROAD_REDIS_URL": own_redis.url,
            "POSTROAD_WEBHOOKS_OUT__SHOP__SECRET": SECRET,
            "PREFECT_API_URL": "http://127.0.0.1:1/api",
        }
        commands = [("recorder",), ("worker", "webhook:out")]
        processes = [start(tmp_path, environment, *words) for words in commands]
        engine = open_engine(database_url)
        rng = random.Random(7)
        try:
            await until(lambda: _is_known(engine), 60, every_s=0.1)
            with write(engine) as connection:
                touch = add_sent_touch(connection)
            seen = 0
            for round_ in range(KILLS):
                for _ in range(4):
                    with write(engine) as connection:
                        add_events(connection, touch, EVENTS // KILLS // 4)
                    await asyncio.sleep(rng.random() * 0.5)
                for place, words in enumerate(commands):
                    if rng.random() < 0.7 or round_ == 0:
                        processes[place].send_signal(signal.SIGKILL)
                        processes[place].wait()
                        processes[place] = start(tmp_path, environment, *words)
                await until(partial(_has_more, receiver, seen), 60, every_s=0.05)
                seen = len(receiver.requests)
            await until(lambda: len(set(receiver.ids)) == EVENTS, 90, every_s=0.1)
            _compare(engine, receiver.ids)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(timeout=30)
            engine.dispose()
        assert "Traceback" not in (tmp_path / "log").read_text()
        assert SECRET not in (tmp_path / "log").read_text()


def _has_more(receiver: Receiver, seen: int) -> bool:
    return len(receiver.requests) > seen


def _is_known(engine: sa.Engine) -> bool:
    with read(engine) as connection:
        return "shop" in endpoint_states(connection)


def _compare(engine: sa.Engine, received: list[str]) -> None:
    """Compare what arrived with the ledger: each event has one id and one delivery."""
    ids = ids_of(engine)
    with read(engine) as connection:
        known = {event.message_id for event in published_events(connection, ids).values()}
        rows = connection.execute(sa.text("SELECT event_id, count(*) FROM webhook_delivery GROUP BY event_id"))
        deliveries = Counter(dict(rows.tuples().all()))
    assert set(received) == known
    assert deliveries == Counter(ids)
