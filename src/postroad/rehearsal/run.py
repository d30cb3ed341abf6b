"""One rehearsal from the file to the report: what flows, worker, recorder and operator do, by a faster clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import CampaignFile, read_campaign
from postroad.campaign.plan import advance, launch
from postroad.campaign.preflight import check
from postroad.campaign.status import Summary, finish_if_done, summary
from postroad.clock import ScaledClock
from postroad.delivery.cohorts.breaker import held
from postroad.delivery.record import GROUP
from postroad.delivery.submit import submit_due
from postroad.queue import QueueStats
from postroad.rehearsal.audience import audience_file
from postroad.rehearsal.holds import Holds
from postroad.rehearsal.pace import LOOK_MS, SpeedController, SpeedSample
from postroad.rehearsal.report import Observed, RehearsalReport, make_report
from postroad.rehearsal.stage import RehearsalEnvironment, RehearsalOptions, RehearsalWorkers, open_crew, open_stage
from postroad.settings import Settings
from postroad.store.engine import read
from postroad.store.ledger import LIVE

ADVANCE_EVERY_S = 300.0
"""As the deployment `advance-campaigns` is scheduled."""
SUBMIT_ROWS = 5_000

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""


@dataclass(frozen=True, kw_only=True)
class _Launched:
    campaign: str
    imported: int
    at: datetime


async def rehearse(
    order: RehearsalOptions, settings: Settings, folder: Path, start: datetime, progress: Progress, stop: asyncio.Event
) -> RehearsalReport:
    """Rehearse a campaign in an empty folder, until it has finished, cannot go on, took too long, or is stopped.

    Raises:
        ConfigError: the campaign's file or its templates are wrong.
        DataError: its CSV cannot be read.
        PreflightError: it could not be launched as it stands.
        UnavailableError: a part of the rehearsal does not start.
    """
    file = read_campaign(order.campaign, settings)
    rows = await asyncio.to_thread(audience_file, file, folder, order.recipients)
    clock = ScaledClock(start, min(order.speed, 1.0))
    async with AsyncExitStack() as stack:
        with clock.held():
            stage = await stack.enter_async_context(open_stage(order, settings, folder, clock))
            launched = await asyncio.to_thread(_launch, stage, file, rows, progress)
        began_s = time.monotonic()
        holds = Holds(clock.now_ms())
        async with open_crew(stage, order.speed) as crew:
            pace = SpeedController(order.speed, crew.slots, clock.now_ms())
            watching = asyncio.create_task(_watch(stage, crew, pace, holds))
            advancing = asyncio.create_task(_advance(stage, crew, launched, order.within_ms, progress, stop))
            try:
                # The others end by an error alone, which the first of them to do so raises here.
                await asyncio.wait([advancing, watching, *crew.tasks], return_when=asyncio.FIRST_COMPLETED)
                for task in (watching, *crew.tasks):
                    if task.done():
                        task.result()
                ended = await advancing
            finally:
                for task in (advancing, watching):
                    task.cancel()
                await asyncio.gather(advancing, watching, return_exceptions=True)
        seen = Observed(
            launched_at=launched.at,
            imported=launched.imported,
            ended=ended,
            real_seconds=time.monotonic() - began_s,
            speed_asked=order.speed,
            pace=pace,
            holds=holds.summed(),
        )
        return await asyncio.to_thread(make_report, stage, launched.campaign, seen)


def _launch(stage: RehearsalEnvironment, file: CampaignFile, rows: Path, progress: Progress) -> _Launched:
    """Apply, import, check, freeze: as the flow `campaign` does, on a clock that stands still."""
    parts, now = stage.parts, stage.clock.now()
    name = apply(parts.engine, parts.settings, file, now).name
    imported = import_file(
        parts.engine,
        file.definition.audience.name,
        rows,
        now,
        report=lambda done: progress("importing", done.rows_done, done.rows_total),
    ).imported
    check(parts.engine, parts.settings, parts.signer, name).require_ok()
    stage.teach_providers()
    launch(parts.engine, name, now)
    return _Launched(campaign=name, imported=imported, at=now)


async def _advance(
    stage: RehearsalEnvironment,
    crew: RehearsalWorkers,
    launched: _Launched,
    within_ms: int,
    progress: Progress,
    stop: asyncio.Event,
) -> str:
    """Do what the flow `advance-campaigns` does, as often as it does. Returns why that came to its end."""
    until_ms = stage.clock.now_ms() + within_ms
    while not stop.is_set():
        with stage.clock.held():
            submitted, finished = await _step_on(stage, launched.campaign)
            if submitted:
                stage.clock.turn(min(stage.clock.speed, 1.0))  # Until it was looked at what that means.
            if finished:
                await asyncio.to_thread(_show, stage, launched.campaign, progress)
                return "finished"
            current = await asyncio.to_thread(_show, stage, launched.campaign, progress)
            stats = await stage.queue.stats()
        if not submitted and await _stuck(stage, stats, current, crew):
            return "held for good"
        if stage.clock.now_ms() >= until_ms:
            return "time is up"
        await _sleep(stage.clock, stop)
    return "stopped"


async def _sleep(clock: ScaledClock, stop: asyncio.Event) -> None:
    sleeping = asyncio.create_task(clock.sleep(ADVANCE_EVERY_S))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([sleeping, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in (sleeping, stopping):
        task.cancel()


async def _step_on(stage: RehearsalEnvironment, name: str) -> tuple[int, bool]:
    """Plan, hand over, close. Returns how many were handed over, and whether the campaign has finished."""
    parts, clock = stage.parts, stage.clock
    await asyncio.to_thread(advance, parts.engine, name, clock.now())
    submitted, cursor, done = 0, 0, False
    while not done:
        step = await submit_due(
            parts.engine,
            stage.queue,
            name,
            now=clock.now(),
            horizon_ms=parts.settings.delivery.horizon_ms,
            expire_ms=parts.settings.delivery.expire_ms,
            cursor=cursor,
            limit=SUBMIT_ROWS,
            shaping=parts.shaping,
        )
        submitted, cursor, done = submitted + step.submitted, step.cursor, step.done
    return submitted, await asyncio.to_thread(finish_if_done, parts.engine, name, clock.now())


async def _stuck(stage: RehearsalEnvironment, stats: QueueStats, current: Summary, crew: RehearsalWorkers) -> bool:
    """Whether nothing moves by itself any more: it waits behind a gate that nobody opens, or its list is paused."""
    if stats.ready_lanes or stats.in_flight or _unrecorded(stats) or current.next_due_at:
        return False
    if not stats.scheduled:
        # A lane that is ready is one that no claim has looked at yet.
        return stats.queued > 0 and crew.worker.next_ms is None
    return not stats.queued and stats.scheduled == await asyncio.to_thread(_held, stage)


def _held(stage: RehearsalEnvironment) -> int:
    with read(stage.parts.engine) as connection:
        field = stage.parts.settings.cohort_breaker.source_field
        return held(connection, field, stage.clock.now()).total()


def _unrecorded(stats: QueueStats) -> int:
    return sum(group.pending + group.unread for group in stats.groups if group.name == GROUP)


def _show(stage: RehearsalEnvironment, name: str, progress: Progress) -> Summary:
    current = summary(stage.parts.engine, name)
    for step in current.steps:
        ended = sum(n for state, n in step.counts.items() if state not in LIVE)
        progress(step.name, ended, step.touches or current.audience)
    return current


async def _watch(stage: RehearsalEnvironment, crew: RehearsalWorkers, pace: SpeedController, holds: Holds) -> None:
    """Judge lists, look at the queue, keep account of what holds, and set the clock's speed."""
    while True:
        await asyncio.sleep(LOOK_MS / 1000)
        await crew.judging.look()
        # First, so that what the worker claims meanwhile is seen as in flight below.
        next_ms = crew.worker.next_ms
        stats, gates = await stage.queue.stats(), await stage.queue.gates()
        now_ms = stage.clock.now_ms()
        holds.look(gates, now_ms)
        look = SpeedSample(
            now_ms=now_ms,
            scheduled=stats.scheduled,
            in_flight=stats.in_flight,
            ready_lanes=stats.ready_lanes,
            unrecorded=_unrecorded(stats),
            next_ms=next_ms,
        )
        stage.clock.turn(*pace.next(look))
