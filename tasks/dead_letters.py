"""Steps that list and replay dead letters."""

from __future__ import annotations

from datetime import UTC, datetime

from postroad.app.context import open_context
from postroad.app.replay import replay as replay_dead_letters
from postroad.operations.dead_letters import DeadGroup, group_by_cause, list_dead_letters
from tasks.policy import retried
from tasks.report import publish_sentences


@retried("preview dead letters")
async def preview(queue: str, cause: str | None, until: datetime) -> list[DeadGroup]:
    """Show by cause the dead letters until a time, so that an approval applies to these only."""
    async with open_context() as context:
        letters = await list_dead_letters(context.engine, await context.queue(queue), cause=cause, until_ms=_ms(until))
    groups = group_by_cause(letters)
    if groups:
        rows = [
            {"cause": group.cause, "letters": group.letters, "newest": _at(group.newest_ms), "example": group.example}
            for group in groups
        ]
        await publish_sentences(
            f"dead-letters-{queue.replace(':', '-')}",
            rows,
            f"Dead letters of {queue}, by cause, each with an example.",
        )
    return groups


@retried("replay dead letters")
async def replay(queue: str, cause: str | None, until: datetime) -> int:
    """Send dead letters again. Those that an earlier attempt of this task replayed are no longer dead.

    Returns:
        How many were sent again.
    """
    async with open_context() as context:
        opened = await context.queue(queue)
        letters = await list_dead_letters(context.engine, opened, cause=cause, until_ms=_ms(until))
        return await replay_dead_letters(context, opened, [letter.id for letter in letters])


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def _at(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
