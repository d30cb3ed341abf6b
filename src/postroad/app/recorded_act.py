"""Records an act of a user or a program in the audit log without keeping the event loop waiting for the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import sqlalchemy as sa

from postroad.errors import UnavailableError
from postroad.store.audit import AuditedAct, audited, save_act

ACT_WITHIN_S: Final = 120.0


@asynccontextmanager
async def recorded_act(engine: sa.Engine, act: AuditedAct, *, first: bool = False) -> AsyncIterator[AuditedAct]:
    """Record what the block does, in the first transaction that it commits. See `postroad.store.audit.audited`.

    Args:
        engine: The database.
        act: The act, whose count the block may set.
        first: Commit the record before the block, for an act outside the database, such as on the queue.

    Yields:
        The act.

    Raises:
        UnavailableError: The database is unavailable.
    """
    if first:
        await _save(engine, act)
    with audited(engine, act):
        yield act
        if not act.is_saved:
            await _save(engine, act)


async def _save(engine: sa.Engine, act: AuditedAct) -> None:
    """Save a record in a thread: this may block for as long as the database is locked, and other requests do not."""
    try:
        async with asyncio.timeout(ACT_WITHIN_S):
            await asyncio.to_thread(save_act, engine, act)
    except TimeoutError:
        raise UnavailableError(
            f"the database took more than {ACT_WITHIN_S:g} s to record the act",
            remedy="Look whether it was done before it is repeated.",
        ) from None
