"""Steps that announce paused cohorts."""

from __future__ import annotations

import asyncio

from postroad.app.context import AppContext, open_context
from postroad.store.cohort import NamedPause, mark_announced, pauses
from postroad.store.engine import read, write
from tasks.report import announce

PAUSED = "postroad.cohort.paused"


async def announce_pauses() -> list[NamedPause]:
    """Emit an event for each pause that was not announced yet. It is not a task, since pauses are rare.

    They are marked after their events: a run that dies in between announces them twice rather than not at all.

    Returns:
        The pauses.
    """
    async with open_context() as context:
        new = await asyncio.to_thread(_unannounced, context)
        for campaign, step, pause in new:
            announce(
                PAUSED,
                f"postroad.cohort.{pause.id}",
                f"{campaign}, {step}: {pause.source or 'no source'} at {pause.provider}",
                {
                    "campaign": campaign,
                    "step": step,
                    "source": pause.source,
                    "provider": pause.provider,
                    "reason": pause.reason,
                    "resume": f"postroad cohort resume {pause.id} --reason ...",
                },
            )
        if new:
            await asyncio.to_thread(_mark, context, [pause.id for _, _, pause in new if pause.id is not None])
    return new


def _unannounced(context: AppContext) -> list[NamedPause]:
    with read(context.engine) as connection:
        return pauses(connection, unannounced=True)


def _mark(context: AppContext, ids: list[int]) -> None:
    with write(context.engine) as connection:
        mark_announced(connection, ids, context.clock.now())
