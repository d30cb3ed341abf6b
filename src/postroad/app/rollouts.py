"""Shows the rollout of a campaign, and lets its next share go because a person or a program says so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from postroad.app.advance import Advance, advance_campaign
from postroad.app.context import AppContext
from postroad.senders import rollout
from postroad.senders.rollout import RolloutStatus
from postroad.store.campaign import find_campaign
from postroad.store.engine import read


@dataclass(frozen=True, kw_only=True)
class Widening:
    """A share that was let go. ``opened``: by this call, and not before. ``advance``: the pass that followed."""

    opened: bool
    advance: Advance


async def read_rollout(context: AppContext, name: str) -> RolloutStatus | None:
    """Return the rollout of a campaign. None: it has none, or was not launched.

    Args:
        context: The open parts.
        name: Name of the campaign.

    Returns:
        The rollout.

    Raises:
        StateError: There is no such campaign.
        UnavailableError: The database is unavailable.
    """

    def find() -> RolloutStatus | None:
        with read(context.engine) as connection:
            return rollout.rollout_status(connection, find_campaign(connection, name))

    return await asyncio.to_thread(find)


async def running_rollout(context: AppContext, name: str) -> RolloutStatus:
    """Return the rollout of a running campaign.

    Args:
        context: The open parts.
        name: Name of the campaign.

    Returns:
        The rollout.

    Raises:
        StateError: There is no such campaign, it has no rollout, or it does not run.
        UnavailableError: The database is unavailable.
    """

    def find() -> RolloutStatus:
        with read(context.engine) as connection:
            return rollout.require_rollout(connection, find_campaign(connection, name))

    return await asyncio.to_thread(find)


async def widen(context: AppContext, name: str, number: int, *, by: str) -> Widening:
    """Let a share of a campaign's rollout go, whatever holds it, and make a pass over the campaign. Idempotent.

    Args:
        context: The open parts.
        name: Name of the campaign.
        number: Number of the share that is next, as the caller saw it.
        by: Who says so; kept in the ledger.

    Returns:
        Whether this call let it go, and what the pass did.

    Raises:
        StateError: There is no such campaign or share, or the campaign does not run.
        UnavailableError: The database or the queue is unavailable.
    """
    now = context.clock.now()
    opened = await asyncio.to_thread(rollout.widen, context.engine, name, number, by=by, now=now)
    return Widening(opened=opened, advance=await advance_campaign(context, name))
