"""Tasks that fetch bounces, complaints and replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from postroad.app.context import open_context
from postroad.bounce.intake import BOUNCE_QUEUE, Intake
from postroad.bounce.sources.poll import poll
from postroad.bounce.sources.source import PollResult
from postroad.errors import StateError
from postroad.settings import Settings
from tasks.policy import retried
from tasks.report import publish_table


def list_sources() -> list[str]:
    """Return the names of the sources in the settings. Not a task: most installations have none."""
    return sorted(Settings.load().bounce.sources)


@retried("fetch", run_name="fetch {source}", retries=4)
async def fetch(source: str) -> PollResult:
    """Put the mails that wait at a source on the queue, page by page, and acknowledge each page last.

    One task run makes the whole pass, which takes thousands of mails. Its result has counts and no mails. A retry
    begins with the mails that were not acknowledged. Mails that are stored already are recognized.

    Returns:
        How many mails it stored, by kind.

    Raises:
        StateError: The settings have no such source.
    """
    async with open_context() as context:
        sources = context.settings.bounce.sources
        if source not in sources:
            raise StateError(f"there is no source named {source!r} any more")
        intake = Intake(engine=context.engine, queue=await context.queue(BOUNCE_QUEUE), clock=context.clock)
        return await poll(source, sources[source], intake.submit)


async def publish_fetched(passes: Sequence[PollResult]) -> None:
    """Show what each source had. A pass that found nothing leaves no table."""
    if any(one.taken or one.known or one.unreadable for one in passes):
        await publish_table("bounces", [asdict(one) for one in passes], "Bounces, complaints and replies, by source.")
