"""Pauses, resumes and cancels campaigns.

Each change is written to the ledger first, where it takes effect at once. The queue follows, to save useless work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import col

from postroad.campaign.entry import CampaignEntry
from postroad.errors import StateError
from postroad.gates.name import GateName
from postroad.queue import Queue
from postroad.store.campaign import Campaign, CampaignState, close_entry, find_campaign, record_pause, set_state
from postroad.store.ending import cancel_waiting
from postroad.store.engine import read, write
from postroad.store.operator_pause import record_operator_pause, record_operator_resume


async def pause(engine: sa.Engine, queue: Queue, name: str, *, by: str, now: datetime) -> None:
    """Pause a campaign. Mail on the wire is finished.

    Args:
        engine: The ledger's database.
        queue: The queue of this campaign.
        name: Name of the campaign.
        by: Who pauses it, as text, such as "`postroad campaign pause`".
        now: The time.

    Raises:
        StateError: The campaign does not run.
    """

    def write_pause() -> None:
        with write(engine) as connection:
            campaign_id = _move_campaign(connection, name, CampaignState.PAUSED, (CampaignState.RUNNING,))
            record_pause(connection, campaign_id, by=by, run_id=None, now=now)

    await asyncio.to_thread(write_pause)
    await queue.pause_group(name)


async def resume(engine: sa.Engine, queue: Queue, name: str, *, by: str, now: datetime) -> None:
    """Resume a paused campaign. The pause is recorded.

    Of a campaign that runs and whose jobs are still paused in the queue, because an earlier call was interrupted, it
    resumes the jobs.

    Args:
        engine: The ledger's database.
        queue: The queue of this campaign.
        name: Name of the campaign.
        by: Who resumes it, as text.
        now: The time.

    Raises:
        StateError: The campaign is not paused, and neither are its jobs.
    """

    def write_resume() -> StateError | None:
        with write(engine) as connection:
            campaign = find_campaign(connection, name, for_update=True)
            if campaign.state is CampaignState.RUNNING:
                return _cannot_become(campaign, CampaignState.RUNNING)
            _move_campaign(connection, name, CampaignState.RUNNING, (CampaignState.PAUSED,))
            record_past_pause(connection, campaign, by=by, now=now)
            return None

    refusal = await asyncio.to_thread(write_resume)
    if not await queue.resume_group(name) and refusal is not None:
        raise refusal


async def sync_pause(engine: sa.Engine, queue: Queue, name: str) -> None:
    """Pause or resume the jobs of a campaign in the queue, as the ledger has the campaign. Idempotent.

    It completes a pause or a resume whose process died between the ledger and the queue.

    Args:
        engine: The ledger's database.
        queue: The queue of this campaign.
        name: Name of the campaign.

    Raises:
        StateError: There is no such campaign.
        UnavailableError: The database or the queue is unavailable.
    """

    def is_paused() -> bool:
        with read(engine) as connection:
            return find_campaign(connection, name).state is CampaignState.PAUSED

    done: bool | None = None
    while (paused := await asyncio.to_thread(is_paused)) is not done:
        await (queue.pause_group(name) if paused else queue.resume_group(name))
        done = paused  # A person may have changed it meanwhile.


def record_past_pause(connection: sa.Connection, campaign: Campaign, *, by: str, now: datetime) -> None:
    """Record the pause of a campaign that is resumed, so that delays can be charged to it later.

    Args:
        connection: A connection in the transaction that resumes it.
        campaign: The campaign as it was while it was paused.
        by: Who resumes it.
        now: The time.
    """
    if campaign.paused_at is None:
        return
    gate, who = str(GateName.campaign(campaign.name)), campaign.paused_by or "an operator"
    record_operator_pause(connection, "", gate, by=who, now=campaign.paused_at)
    record_operator_resume(connection, "", gate, by=by, now=now)


async def cancel(engine: sa.Engine, queue: Queue, name: str, now: datetime) -> int:
    """End a campaign for good, and every touch of it that is not on the wire.

    Args:
        engine: The ledger's database.
        queue: The queue of this campaign.
        name: Name of the campaign.
        now: The time.

    Returns:
        The number of cancelled touches for which the queue may have jobs.

    Raises:
        StateError: There is no such campaign, or it is finished.
    """
    cancelled = await asyncio.to_thread(cancel_in_ledger, engine, name, now)
    await queue.cancel_group(name, "campaign cancelled")
    return cancelled


def close(engine: sa.Engine, name: str, now: datetime) -> None:
    """Close the entry of a campaign: no more recipients enter, and the campaign finishes after those who did.

    Args:
        engine: The ledger's database.
        name: Name of the campaign.
        now: The time.

    Raises:
        StateError: There is no such campaign, it was not launched or has ended, or recipients enter only at its launch.
    """
    with write(engine) as connection:
        campaign = find_campaign(connection, name, for_update=True)
        assert campaign.id is not None  # noqa: S101  (read from its table)
        if not CampaignEntry.of(campaign).stays_open:
            raise StateError(
                f"recipients enter campaign {name} only at its launch",
                remedy=f"It finishes by itself. `postroad campaign cancel {name}` ends it at once.",
            )
        if campaign.state not in (CampaignState.RUNNING, CampaignState.PAUSED):
            raise StateError(
                f"campaign {name} is {campaign.state}, so its entry is not open",
                remedy=f"`postroad campaign status {name}` shows its state.",
            )
        if campaign.entry_closed_at is None:
            close_entry(connection, campaign.id, now)


def _move_campaign(connection: sa.Connection, name: str, state: CampaignState, allowed: Sequence[CampaignState]) -> int:
    campaign = find_campaign(connection, name, for_update=True)
    assert campaign.id is not None  # noqa: S101  (read from its table)
    if campaign.state not in allowed:
        raise _cannot_become(campaign, state)
    set_state(connection, campaign.id, state)
    return campaign.id


def _cannot_become(campaign: Campaign, state: CampaignState) -> StateError:
    return StateError(
        f"campaign {campaign.name} is {campaign.state}, so it cannot become {state}",
        remedy=f"`postroad campaign status {campaign.name}` shows its state.",
    )


def cancel_in_ledger(engine: sa.Engine, name: str, now: datetime) -> int:
    """End a campaign and its waiting touches in the ledger only. Idempotent.

    Args:
        engine: The ledger's database.
        name: Name of the campaign.
        now: The time.

    Returns:
        The number of cancelled touches for which the queue may have jobs.

    Raises:
        StateError: There is no such campaign, or it is finished.
    """
    with write(engine) as connection:
        # Also a cancelled one: an earlier call may have been interrupted.
        allowed = (CampaignState.DRAFT, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.CANCELLED)
        campaign_id = _move_campaign(connection, name, CampaignState.CANCELLED, allowed)
        finish = sa.update(Campaign).where(col(Campaign.id) == campaign_id, col(Campaign.finished_at).is_(None))
        connection.execute(finish.values(finished_at=now))
    return cancel_waiting(engine, campaign_id, now)
