"""Pauses campaigns whose Prefect run was cancelled or suspended.

The recorder checks every two seconds, which needs no Prefect worker. The deployment `pause-campaigns` does the same
once, when an automation starts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from postroad.app.context import AppContext
from postroad.delivery.submit import queue_name
from postroad.errors import UnavailableError
from postroad.local.flow_run import RunState
from postroad.local.prefect_api import PrefectApi, open_prefect
from postroad.operations.campaign_runs import end_runs, stop_run
from postroad.store.campaign_run import ActiveRun, active_runs
from postroad.store.engine import read

log = logging.getLogger(__name__)

POLL_INTERVAL_S: Final = 2.0
STOPPED: Final = {"CANCELLING": "was cancelled", "CANCELLED": "was cancelled", "PAUSED": "was suspended"}
"""Kinds of state that stop mail, and what happened to the run."""
PAGE_SIZE: Final = 200
"""Runs that Prefect returns in one response."""


async def pause_stopped(context: AppContext) -> list[str]:
    """Pause each campaign whose run was cancelled or suspended, and log it on the run's page.

    Idempotent. It calls Prefect only while runs work on campaigns.

    Returns:
        The names of the campaigns that it paused.

    Raises:
        UnavailableError: Prefect, the database or the queue does not answer.
    """
    runs = await asyncio.to_thread(_active_runs, context)
    if not runs:
        return []
    paused: list[str] = []
    async with open_prefect(context.settings) as prefect:  # Opened each time: Prefect may listen on another port now.
        for start in range(0, len(runs), PAGE_SIZE):
            paused += await _pause_page(context, prefect, runs[start : start + PAGE_SIZE])
    return paused


def _active_runs(context: AppContext) -> list[ActiveRun]:
    with read(context.engine) as connection:
        return active_runs(connection)


async def _pause_page(context: AppContext, prefect: PrefectApi, runs: Sequence[ActiveRun]) -> list[str]:
    states = await prefect.states([run.run_id for run in runs])
    paused: list[str] = []
    ended: list[str] = []
    for run in runs:
        state = states.get(run.run_id)
        why = STOPPED.get(state.kind) if state is not None else None
        if why is not None:
            paused += await _stop(context, prefect, run, why)
        elif _has_ended(state):
            ended.append(run.run_id)
    if ended:
        await asyncio.to_thread(end_runs, context.engine, ended)
    return paused


def _has_ended(state: RunState | None) -> bool:
    """Return whether a run has ended or its record was deleted."""
    return state is None or state.terminal


async def _stop(context: AppContext, prefect: PrefectApi, run: ActiveRun, why: str) -> list[str]:
    name = run.campaign
    queue = await context.queue(await asyncio.to_thread(queue_name, context.engine, name))
    if not await stop_run(context.engine, queue, run, why, context.clock.now()):
        return []
    message = (
        f"Mail of campaign {name} has stopped: this run {why}, so the campaign is paused. "
        f"To resume it, run `postroad campaign resume {name}`, or start this deployment again with the same campaign."
    )
    log.warning("campaign %s is paused: its Prefect run %s %s", name, run.run_id, why)
    await prefect.add_log(run.run_id, message, context.clock.now())
    return [name]


async def watch_runs(context: AppContext) -> None:
    """Run `pause_stopped` every two seconds, until cancelled. Errors are logged, and the next round retries."""
    failing = False
    while True:
        try:
            await pause_stopped(context)
            failing = False
        except Exception as error:
            # Any exception: if this loop ended, cancelling a run would no longer stop mail.
            fault = None if isinstance(error, UnavailableError) else error
            if not failing:
                log.warning("cancelling a run in Prefect does not pause its campaign now: %s", error, exc_info=fault)
            failing = True
        await context.clock.sleep(POLL_INTERVAL_S)
