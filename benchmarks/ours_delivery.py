"""Postroad's delivery as a contestant: a campaign from its CSV to its recorded outcomes.

Its environment names its folder (`benchmarks.campaign_folder`). Every process is a worker and a recorder, made as
the commands make them; a message counts once it is recorded in SQL.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks import campaign_folder
from benchmarks.contract import TELL_S, Contestant, Put, Tally, run
from postroad.app.context import AppContext, open_context
from postroad.app.submit import submit
from postroad.app.worker import open_worker
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import launch
from postroad.cli.event_loop import run as on_uvloop
from postroad.cli.worker import tune_gc
from postroad.delivery.job import SEND_QUEUE
from postroad.settings import Settings

FOLDER = "BENCH_FOLDER"


def settings_of(folder: Path, redis_url: str) -> Settings:
    os.environ["POSTROAD_REDIS_URL"] = redis_url
    return Settings.load(folder / "postroad.toml")


async def hand_over(context: AppContext) -> int:
    """Launch the campaign and submit all of it. Returns to how many."""
    launched = await asyncio.to_thread(launch, context.engine, campaign_folder.CAMPAIGN, context.clock.now())
    submitted = await submit(context, campaign_folder.CAMPAIGN, cursor=0, rows=launched.audience)
    assert submitted.submitted == launched.audience, f"{submitted.submitted} of {launched.audience} were submitted"
    return submitted.submitted


def import_recipients(context: AppContext, folder: Path, count: int, *, first: int = 0) -> None:
    path = folder / f"readers-{first}.csv"
    campaign_folder.write_recipients(path, count, first=first)
    import_file(context.engine, campaign_folder.AUDIENCE, path, context.clock.now())


def apply_campaign(context: AppContext, folder: Path) -> None:
    apply(context.engine, context.settings, read_campaign(folder / "campaign.yaml"), context.clock.now())


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Put]:
    folder = Path(os.environ[FOLDER])
    async with open_context(settings_of(folder, url)) as context:
        waiting = 0

        async def put(payloads: Sequence[str]) -> None:
            # A campaign goes out whole: the warm-up's recipients are its first ones.
            nonlocal waiting
            import_recipients(context, folder, len(payloads), first=waiting)
            warm_up, waiting = not waiting, waiting + len(payloads)
            if not warm_up:
                apply_campaign(context, folder)
                await hand_over(context)

        yield put


async def work(url: str, tally: Tally) -> None:
    folder = Path(os.environ[FOLDER])
    tune_gc()
    async with open_context(settings_of(folder, url)) as context:
        queue = await context.queue(SEND_QUEUE)
        name = f"bench-{os.getpid()}"
        limits = context.settings.queue(SEND_QUEUE)
        recorder = context.recorder(queue, name)
        async with open_worker(context, queue, limits, name=name) as worker, asyncio.TaskGroup() as together:
            together.create_task(worker.run(asyncio.Event()))
            together.create_task(recorder.run(asyncio.Event()))
            while True:
                await asyncio.sleep(TELL_S)
                tally.add(recorder.recorded - tally.count)


if __name__ == "__main__":
    run(
        Contestant(
            packages=("postroad", "redis", "aiosmtplib", "sqlalchemy", "uvloop"),
            enqueue="import_file, launch, submit",
            worker="worker (concurrency 600, 50 connections) and recorder in each process, on uvloop, SQLite; "
            "every message admitted by the ledger, and recorded",
            source="docs/",
            producer=producer,
            work=work,
            run=on_uvloop,
        )
    )
