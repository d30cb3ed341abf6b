"""Steps that fetch what came back."""

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
    """Names of the sources in the settings. No task: most houses have none, and their runs cost nothing."""
    return sorted(Settings.load().bounce.sources)


@retried("fetch", run_name="fetch {source}", retries=4)
async def fetch(source: str) -> PollResult:
    """Put on the queue what is waiting at a source, page by page, and acknowledge each page last.

    One task run for a whole pass, which takes thousands of mails. It hands on counts and never mails: a retry begins
    with what was not acknowledged, and what was kept already is known.
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
        await publish_table("bounces", [asdict(one) for one in passes], "What came back, by source.")
