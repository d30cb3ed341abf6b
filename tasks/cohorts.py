"""Steps that tell of lists whose mail is paused."""

from __future__ import annotations

import asyncio

from postroad.parts import Parts, open_parts
from postroad.store.cohort import NamedPause, mark_announced, pauses
from postroad.store.engine import read, write
from tasks.report import announce

PAUSED = "postroad.cohort.paused"


async def announce_pauses() -> list[NamedPause]:
    """Emit an event for each pause that nobody was told of. No task: there is hardly ever one.

    Noted only once they are emitted: a run that dies between tells again rather than not at all.
    """
    async with open_parts() as parts:
        new = await asyncio.to_thread(_unannounced, parts)
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
            await asyncio.to_thread(_mark, parts, [pause.id for _, _, pause in new if pause.id is not None])
    return new


def _unannounced(parts: Parts) -> list[NamedPause]:
    with read(parts.engine) as connection:
        return pauses(connection, unannounced=True)


def _mark(parts: Parts, ids: list[int]) -> None:
    with write(parts.engine) as connection:
        mark_announced(connection, ids, parts.clock.now())
