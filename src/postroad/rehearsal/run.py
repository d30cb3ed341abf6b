"""Runs one rehearsal, from the file to the report: what flows, worker and recorder do, by a faster clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from postroad.app.advance import Advance, advance_campaign
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import CampaignFile, read_campaign
from postroad.campaign.launch_rules import LaunchRules
from postroad.campaign.plan import launch
from postroad.campaign.preflight import check
from postroad.campaign.rollout import next_share
from postroad.campaign.status import CampaignSummary, summary
from postroad.clock import ScaledClock
from postroad.delivery.recorder import GROUP
from postroad.queue import QueueStats
from postroad.rehearsal.audience import audience_file
from postroad.rehearsal.environment import (
    RehearsalEnvironment,
    RehearsalOptions,
    RehearsalWorkers,
    open_environment,
    open_workers,
)
from postroad.rehearsal.holds import Holds
from postroad.rehearsal.report import Observed, RehearsalReport, make_report
from postroad.rehearsal.speed import SAMPLE_MS, SpeedController, SpeedSample
from postroad.rehearsal.warmup import WarmupDays
from postroad.senders.cohort_breaker import count_held
from postroad.senders.rollout import RolloutHold
from postroad.settings import Settings
from postroad.store.engine import read
from postroad.store.ledger import LIVE

ADVANCE_EVERY_S = 300.0
"""As the deployment `advance-campaigns` is scheduled."""

Progress = Callable[[str, int, int], None]
"""Called with the name of the work, how much of it is done, and how much there is."""


@dataclass(frozen=True, kw_only=True)
class _Launched:
    campaign: str
    imported: int
    at: datetime


async def rehearse(
    options: RehearsalOptions,
    settings: Settings,
    folder: Path,
    start: datetime,
    progress: Progress,
    stop: asyncio.Event,
) -> RehearsalReport:
    """Rehearse a campaign in an empty folder until it finishes, cannot continue, takes too long, or is stopped.

    Returns:
        The report, also of one that did not finish.

    Raises:
        ConfigError: The campaign's file or its templates are wrong.
        DataError: Its CSV cannot be read.
        PreflightError: It could not be launched as it is.
        UnavailableError: A part of the rehearsal does not start.
    """
    file = read_campaign(options.campaign, settings)
    rows = await asyncio.to_thread(audience_file, file, folder, options.recipients)
    clock = ScaledClock(start, min(options.speed, 1.0))
    async with AsyncExitStack() as stack:
        with clock.paused():
            environment = await stack.enter_async_context(open_environment(options, settings, folder, clock))
            days = WarmupDays(environment.context)
            await asyncio.to_thread(days.begin, options.warmup_day)
            launched = await asyncio.to_thread(_launch, environment, file, rows, progress)
        began_s = time.monotonic()
        ended, speed, holds = await _run(
            environment, options, _Pass(environment, launched.campaign, days, progress), stop
        )
        seen = Observed(
            launched_at=launched.at,
            imported=launched.imported,
            ended=ended,
            real_seconds=time.monotonic() - began_s,
            speed_asked=options.speed,
            speed=speed,
            holds=holds.summed(),
            warmup=await asyncio.to_thread(days.account, launched.at),
        )
        return await asyncio.to_thread(make_report, environment, launched.campaign, seen)


async def _run(
    environment: RehearsalEnvironment, options: RehearsalOptions, step: _Pass, stop: asyncio.Event
) -> tuple[str, SpeedController, Holds]:
    """Run the campaign to its end. Returns why it ended, and what was seen on the way."""
    holds = Holds(environment.clock.now_ms())
    async with open_workers(environment, options.speed) as workers:
        speed = SpeedController(options.speed, workers.slots, environment.clock.now_ms())
        watching = asyncio.create_task(watch(environment, workers, speed, holds))
        advancing = asyncio.create_task(_advance(step, workers, options.within_ms, stop))
        try:
            # The others end by an error alone, which the first of them to do so raises here.
            await asyncio.wait([advancing, watching, *workers.tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, *workers.tasks):
                if task.done():
                    task.result()
            return await advancing, speed, holds
        finally:
            for task in (advancing, watching):
                task.cancel()
            await asyncio.gather(advancing, watching, return_exceptions=True)


def _launch(environment: RehearsalEnvironment, file: CampaignFile, rows: Path, progress: Progress) -> _Launched:
    """Apply, import, check, freeze: as the flow `campaign` does. The clock is held meanwhile."""
    context, now = environment.context, environment.clock.now()
    # Its mail goes to the sandbox alone, so no person has to approve it.
    file = replace(file, definition=file.definition.model_copy(update={"approval": None}))
    name = apply(context.engine, context.settings, file, now).name
    imported = import_file(
        context.engine,
        file.definition.audience_name,
        rows,
        now,
        types=context.settings.field_types(file.definition.audience_name),
        report=lambda done: progress("importing", done.rows_done, done.rows_total),
    ).imported
    check(context.engine, context.settings, context.signer, name, now=now).require_ok()
    environment.store_providers()
    rules = LaunchRules(source_field=context.settings.cohort_breaker.source_field)
    launch(context.engine, name, now, calendar=context.calendar, rules=rules)
    return _Launched(campaign=name, imported=imported, at=now)


class _Pass:
    """One pass of the flow `advance-campaigns`, after that of the flow `warmup` where a day has begun."""

    def __init__(self, environment: RehearsalEnvironment, campaign: str, days: WarmupDays, progress: Progress) -> None:
        self.environment = environment
        self._campaign = campaign
        self._days = days
        self._progress = progress

    async def run(self) -> tuple[Advance, CampaignSummary]:
        """Make the pass. Returns what it did, and the state of the campaign."""
        await self._days.close()
        done = await advance_campaign(self.environment.context, self._campaign)
        return done, await asyncio.to_thread(self._show)

    def _show(self) -> CampaignSummary:
        current = summary(self.environment.context.engine, self._campaign)
        for step in current.steps:
            ended = sum(n for state, n in step.counts.items() if state not in LIVE)
            self._progress(step.name, ended, step.touches or current.audience)
        return current


async def _advance(step: _Pass, workers: RehearsalWorkers, within_ms: int, stop: asyncio.Event) -> str:
    """Make a pass as often as the flow `advance-campaigns` does. Returns why that ended."""
    clock, queue = step.environment.clock, step.environment.queue
    until_ms = clock.now_ms() + within_ms
    while not stop.is_set():
        with clock.paused():
            done, current = await step.run()
            if done.finished:
                return "finished"
            if done.submitted:
                clock.set_speed(min(clock.speed, 1.0))  # Until `watch` has seen what was submitted.
            stats = await queue.stats()
        if not done.submitted and await _stuck(step.environment, stats, current, workers):
            return "held for good"
        if clock.now_ms() >= until_ms:
            return "time is up"
        await _sleep(clock, stop)
    return "stopped"


async def _sleep(clock: ScaledClock, stop: asyncio.Event) -> None:
    sleeping = asyncio.create_task(clock.sleep(ADVANCE_EVERY_S))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([sleeping, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in (sleeping, stopping):
        task.cancel()


async def _stuck(
    environment: RehearsalEnvironment, stats: QueueStats, current: CampaignSummary, workers: RehearsalWorkers
) -> bool:
    """Whether nothing can move any more: all jobs wait for a gate that stays closed, or for a cohort that is paused."""
    if stats.ready_lanes or stats.in_flight or _unrecorded(stats) or current.next_due_at:
        return False
    if not stats.scheduled and not stats.queued and _rollout_is_held(current):
        return True
    if not stats.scheduled:
        # A lane that is ready is one that no claim has looked at yet.
        return stats.queued > 0 and workers.worker.next_ms is None
    return not stats.queued and stats.scheduled == await asyncio.to_thread(_held, environment)


def _rollout_is_held(current: CampaignSummary) -> bool:
    """Return whether the next share of a rollout is held until a person lets it go."""
    coming = next_share(current.rollout)
    by_a_person = (RolloutHold.GUILTY, RolloutHold.UNDECIDED, RolloutHold.PAUSED)
    return coming is not None and coming.held_because in by_a_person


def _held(environment: RehearsalEnvironment) -> int:
    with read(environment.context.engine) as connection:
        field = environment.context.settings.cohort_breaker.source_field
        return count_held(connection, field, environment.clock.now()).total()


def _unrecorded(stats: QueueStats) -> int:
    return sum(group.pending + group.unread for group in stats.groups if group.name == GROUP)


async def watch(
    environment: RehearsalEnvironment, workers: RehearsalWorkers, speed: SpeedController, holds: Holds
) -> None:
    """Check cohorts, sample the queue, add up what gates hold, and set the clock's speed."""
    while True:
        await asyncio.sleep(SAMPLE_MS / 1000)
        await workers.cohorts.check()
        # First, so that what the worker claims meanwhile is seen as in flight below.
        next_ms = workers.worker.next_ms
        stats, gates = await environment.queue.stats(), await environment.queue.gates()
        now_ms = environment.clock.now_ms()
        holds.add(gates, now_ms)
        sample = SpeedSample(
            now_ms=now_ms,
            scheduled=stats.scheduled,
            in_flight=stats.in_flight,
            ready_lanes=stats.ready_lanes,
            unrecorded=_unrecorded(stats),
            next_ms=next_ms,
        )
        environment.clock.set_speed(*speed.next(sample))
