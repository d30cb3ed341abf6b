"""Steps that look at dead letters and send them again."""

from __future__ import annotations

from datetime import UTC, datetime

from postroad.app.context import open_context
from postroad.app.replay import replay as replay_dead_letters
from postroad.operations.dead_letters import DeadGroup, group_by_cause, list_dead_letters
from tasks.policy import retried
from tasks.report import publish_sentences


@retried("preview dead letters")
async def preview(queue: str, cause: str | None, until: datetime) -> list[DeadGroup]:
    """Show by cause what would be sent again: what died before an instant, so that an approval holds for just that."""
    async with open_context() as context:
        letters = await list_dead_letters(context.engine, await context.queue(queue), cause=cause, until_ms=_ms(until))
    groups = group_by_cause(letters)
    if groups:
        rows = [
            {"cause": one.cause, "letters": one.letters, "newest": _at(one.newest_ms), "example": one.example}
            for one in groups
        ]
        await publish_sentences(
            f"dead-letters-{queue.replace(':', '-')}",
            rows,
            f"Dead letters of {queue}, by cause, each with an example.",
        )
    return groups


@retried("replay dead letters")
async def replay(queue: str, cause: str | None, until: datetime) -> int:
    """Send them again. What a try before this one has sent again is no dead letter any more. Returns how many."""
    async with open_context() as context:
        opened = await context.queue(queue)
        letters = await list_dead_letters(context.engine, opened, cause=cause, until_ms=_ms(until))
        return await replay_dead_letters(context, opened, [letter.id for letter in letters])


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def _at(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
