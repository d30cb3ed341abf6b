"""`benchmarks explain`: time of one explanation, and of a campaign's delays, in a large ledger."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from msgspec import Struct
from pydantic import SecretStr

from benchmarks.databases import POSTGRESQL, SQLITE, running_postgresql
from benchmarks.figures import Figure, Measure, alone, median
from benchmarks.large_ledger import large_ledger
from benchmarks.server import Server
from postroad.app.context import AppContext, open_context
from postroad.delivery.job import SEND_QUEUE, job_id, lane_of
from postroad.explain.campaign_delays import campaign_delays
from postroad.explain.story import tell_story
from postroad.gates.name import Receiver
from postroad.queue import Job
from postroad.settings import Settings
from postroad.store import migrate
from postroad.store.campaign import CampaignState
from postroad.store.engine import open_engine, read
from postroad.store.touch_page import touch_page


class Effort(Struct, frozen=True, kw_only=True):
    """``size``: touches of the ledger. ``rounds``: explanations of different people that are measured."""

    size: int = 5_000_000
    rounds: int = 9


QUICK = Effort(size=20_000, rounds=3)


def measures(effort: Effort) -> list[Measure]:
    return [
        Measure(name=f"{what} of {of} at {effort.size:,} touches, {database}, s", bar=bar)
        for database in (SQLITE, POSTGRESQL)
        for what, of, bar in (
            ("processor time", "one explanation", 1.0),
            ("time", "one explanation", 1.0),
            ("time", "the delays of a campaign", 60.0),
        )
    ]


async def measure(server: Server, effort: Effort) -> list[Figure]:
    """Return the figures of both databases. Raises DidNotRun if PostgreSQL is not installed."""
    taken: list[float] = []
    with TemporaryDirectory(prefix="postroad-bench-") as folder:
        taken += await _on_database(server, f"sqlite:///{folder}/postroad.db", Path(folder), effort)
        async with running_postgresql() as url:
            await server.empty()
            taken += await _on_database(server, url, Path(folder), effort)
    return [alone(one, seconds) for one, seconds in zip(measures(effort), taken, strict=True)]


async def _on_database(server: Server, url: str, folder: Path, effort: Effort) -> list[float]:
    engine = open_engine(url)
    migrate.upgrade(engine)
    ledger = large_ledger(engine, effort.size)
    campaign_id, [step] = ledger.campaign("spring", CampaignState.RUNNING)
    people = effort.rounds + 1
    ledger.touches(campaign_id, step, "queued", 1, people)
    os.environ["POSTROAD_STATE_DIR"] = str(folder / "state")
    settings = Settings(redis_url=SecretStr(server.url))
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context(settings, engine=engine))
        await _enqueue(context, engine, campaign_id, step)
        samples = [await _timed(partial(tell_story, context, _address(n))) for n in range(1, people + 1)]
        _, whole_s = await _timed(partial(campaign_delays, context, "old"))
    # The first one warms up.
    return [median([cpu for cpu, _ in samples[1:]]), median([wall for _, wall in samples[1:]]), whole_s]


async def _timed(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Return the processor time of this process, and the time, of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    await work()
    return time.process_time() - cpu, time.perf_counter() - wall


def _address(number: int) -> str:
    return f"r{number}@d{number % 97}.example"


async def _enqueue(context: AppContext, engine: sa.Engine, campaign_id: int, step: int) -> None:
    queue = await context.queue(SEND_QUEUE)
    lane = lane_of(
        sender="news@example.com", receiver=Receiver("other"), campaign="spring", route="relay", job_class="normal"
    )
    with read(engine) as connection:
        page = touch_page(connection, campaign_id, step, after=0)
    await queue.enqueue(lane, [Job(id=job_id(touch.id), payload=b"") for touch in page])
    await queue.pause_gate("route:relay", None)
