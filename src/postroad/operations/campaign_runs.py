"""Ties Prefect runs to their campaigns: a run that is stopped pauses its campaign.

A row joins a run and its campaign. The run inserts it when it begins, so a run that never began pauses no campaign. The
transaction that pauses the campaign deletes it, so one stop has one effect, however many processes notice it.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import NoReturn, assert_never

import sqlalchemy as sa

from postroad.errors import StateError
from postroad.operations.campaigns import record_past_pause
from postroad.queue import Queue
from postroad.store.campaign import CampaignState, find_campaign, record_pause, set_state
from postroad.store.campaign_run import ActiveRun, add_run, delete_runs
from postroad.store.engine import read, write


async def begin_run(engine: sa.Engine, queue: Queue, name: str, run_id: str, *, scheduled: bool, now: datetime) -> None:
    """Record that a run works on a campaign, and resume the campaign if a stopped run paused it.

    Args:
        engine: The ledger's database.
        queue: The queue of this campaign.
        name: Name of the campaign.
        run_id: Id of the Prefect run.
        scheduled: Whether a schedule started the run. Such a run only resumes a campaign that its own stop paused.
        now: The time.

    Raises:
        StateError: There is no such campaign, or it is paused and this run may not resume it.
    """

    def write_begin() -> bool:
        with write(engine) as connection:
            campaign = find_campaign(connection, name, for_update=True)
            assert campaign.id is not None  # noqa: S101  (read from its table)
            if campaign.state is CampaignState.PAUSED:
                stopped = campaign.paused_run_id
                if stopped is None or (scheduled and stopped != run_id):
                    _reject_paused(name, campaign.paused_by)
                set_state(connection, campaign.id, CampaignState.RUNNING)
                record_past_pause(connection, campaign, by=f"its Prefect run {run_id}", now=now)
            add_run(connection, run_id, campaign.id, now)
            return campaign.state in (CampaignState.PAUSED, CampaignState.RUNNING)

    if await asyncio.to_thread(write_begin):
        # Also for a running campaign: an earlier attempt may have died between the ledger and the queue.
        await queue.resume_group(name)


def require_launchable(engine: sa.Engine, name: str) -> None:
    """Check that a person may launch a campaign in its present state.

    Raises:
        StateError: There is no such campaign, it has ended, or a person paused it.
    """
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
    match campaign.state:
        case CampaignState.DRAFT | CampaignState.RUNNING:
            return
        case CampaignState.PAUSED:
            if campaign.paused_run_id is None:
                _reject_paused(name, campaign.paused_by)
        case CampaignState.FINISHED | CampaignState.CANCELLED:
            raise StateError(
                f"campaign {name} is {campaign.state}, so it cannot be launched",
                remedy="Apply it under another name to send it again.",
            )
        case other:
            assert_never(other)


def _reject_paused(name: str, by: str | None) -> NoReturn:
    raise StateError(
        f"campaign {name} is paused{f' by {by}' if by else ''}", remedy=f"`postroad campaign resume {name}` resumes it."
    )


async def stop_run(engine: sa.Engine, queue: Queue, run: ActiveRun, why: str, now: datetime) -> bool:
    """Pause the campaign that a stopped run worked on. Mail on the wire is finished.

    Args:
        engine: The ledger's database.
        queue: The queue of the run's campaign.
        run: The run, as the ledger records it.
        why: What happened to the run, such as "was cancelled".
        now: The time.

    Returns:
        Whether this call paused the campaign. False: the campaign does not run, or an earlier call handled this stop.
    """

    def write_stop() -> bool:
        with write(engine) as connection:
            if not delete_runs(connection, [run.run_id]):
                return False
            campaign = find_campaign(connection, run.campaign, for_update=True)
            if campaign.state is not CampaignState.RUNNING or campaign.id is None:
                return False
            by = f"its Prefect run {run.run_id}, which {why}"
            record_pause(connection, campaign.id, by=by, run_id=run.run_id, now=now)
            return True

    paused = await asyncio.to_thread(write_stop)
    if paused:
        await queue.pause_group(run.campaign)
    return paused


def end_runs(engine: sa.Engine, run_ids: list[str]) -> None:
    """Forget runs that ended by themselves. Their campaigns continue."""
    with write(engine) as connection:
        delete_runs(connection, run_ids)
