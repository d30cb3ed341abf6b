"""Steps that maintain queues and ledger."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from postroad.app import rebuild
from postroad.app.context import open_context
from postroad.local.campaign_form import offer_campaigns
from postroad.local.prefect_api import open_prefect
from postroad.operations.rebuild import RebuildResult
from postroad.queue import Queue
from postroad.settings import DEFAULT_QUEUES
from postroad.store.attachment_retention import delete_old_attachments
from postroad.store.counts import fold_list_counts
from postroad.store.ending import complete_cancellations
from postroad.store.engine import write
from postroad.store.enrolment import fold_enrolment_counts
from postroad.store.retention import Before, Deleted, delete_old, delete_old_mails, delete_old_recipient_events
from postroad.store.touch_count import fold_counts
from postroad.store.traffic import fold_traffic
from postroad.store.variant import fold_variant_counts
from tasks.policy import retried
from tasks.report import publish_table, renew_table

TITLE: Final = "State of the queues."


@dataclass(frozen=True)
class Depth:
    """Jobs of one queue by state. ``unrecorded``: events. ``oldest_ready_ms``: age of the oldest ready job."""

    queue: str
    queued: int
    scheduled: int
    in_flight: int
    uncertain: int
    dead: int
    unrecorded: int
    oldest_ready_ms: int

    @classmethod
    async def of(cls, queue: Queue) -> Depth:
        stats = await queue.stats()
        return cls(
            queue=queue.name,
            queued=stats.queued,
            scheduled=stats.scheduled,
            in_flight=stats.in_flight,
            uncertain=stats.uncertain,
            dead=stats.dead,
            unrecorded=max((group.pending + group.unread for group in stats.groups), default=stats.events),
            oldest_ready_ms=stats.oldest_ready_ms,
        )

    def row(self) -> dict[str, Any]:
        """Return the row of the table. It has few and narrow columns: a table of the UI is 580 pixels wide."""
        return {
            "queue": self.queue,
            "queued": self.queued,
            "scheduled": self.scheduled,
            "in flight": self.in_flight,
            "uncertain": self.uncertain,
            "dead": self.dead,
            "unrecorded": self.unrecorded,
            "oldest": f"{self.oldest_ready_ms // 1000} s",
        }


@retried("tidy the queues")
async def reap_and_promote() -> int:
    """Release expired leases and promote due jobs, also while no worker runs.

    Returns:
        How many jobs were moved.
    """
    moved = 0
    async with open_context() as context:
        for name in DEFAULT_QUEUES:
            queue = await context.queue(name)
            reaped = await queue.reap()
            moved += reaped.released + reaped.uncertain + await queue.promote()
    return moved


@retried("tidy the ledger")
async def tidy_ledger() -> int:
    """Complete interrupted cancellations of campaigns, and fold counts of touches, enrolments and traffic.

    Returns:
        How many touches were ended.
    """
    async with open_context() as context:
        ended = await asyncio.to_thread(complete_cancellations, context.engine, context.clock.now())
        await asyncio.to_thread(_fold_counts, context.engine)
        now = context.clock.now()
        days_since = now - timedelta(milliseconds=context.settings.retention.traffic_ms)
        await asyncio.to_thread(fold_traffic, context.engine, now, days_since)
    return ended


def _fold_counts(engine: sa.Engine) -> None:
    with write(engine) as connection:
        fold_counts(connection)
        fold_enrolment_counts(connection)
        fold_variant_counts(connection)
        fold_list_counts(connection)


@retried("delete what is old")
async def delete_old_rows() -> Deleted:
    """Delete rows older than `[retention]` allows, up to 50,000 of each kind. The next run continues."""
    async with open_context() as context:
        kept, now = context.settings.retention, context.clock.now()

        def ago(ms: int) -> datetime:
            return now - timedelta(milliseconds=ms)

        before = Before(ago(kept.touches_ms), ago(kept.events_ms), ago(kept.bounce_effects_ms))
        return await asyncio.to_thread(delete_old, context.engine, before, now)


@retried("delete old mails")
async def delete_old_bounce_mails() -> int:
    """Delete old rows of returned mail, up to 50,000. The next run continues.

    Returns:
        How many were deleted.
    """
    async with open_context() as context:
        kept = context.settings.retention
        kept_ms = max(kept.bounce_mails_ms, kept.bounce_effects_ms, context.settings.bounce.keep_ms)
        before = context.clock.now() - timedelta(milliseconds=kept_ms)
        return await asyncio.to_thread(delete_old_mails, context.engine, before)


@retried("delete old events of recipients")
async def delete_old_events() -> int:
    """Delete old events of recipients, up to 50,000. The next run continues.

    Returns:
        How many were deleted.
    """
    async with open_context() as context:
        before = context.clock.now() - timedelta(milliseconds=context.settings.retention.recipient_events_ms)
        return await asyncio.to_thread(delete_old_recipient_events, context.engine, before)


@retried("delete old attachments")
async def delete_attachments() -> int:
    """Delete old attachments of requested messages, up to 5,000. The next run continues.

    Returns:
        How many were deleted.
    """
    async with open_context() as context:
        before = context.clock.now() - timedelta(milliseconds=context.settings.retention.attachments_ms)
        return await asyncio.to_thread(delete_old_attachments, context.engine, before)


@retried("compare queue and ledger")
async def rebuild_missing() -> RebuildResult | None:
    """Rebuild the jobs and gates that a queue lost.

    Returns:
        What was rebuilt. None: no job was missing.
    """
    async with open_context() as context:
        return await rebuild.rebuild_missing(context, by="maintenance")


@retried("list campaigns in the form")
async def list_in_form() -> bool:
    """Update the list of campaigns in the form of `campaign`.

    Returns:
        Whether it was changed.
    """
    async with open_context() as context, open_prefect(context.settings) as prefect:
        return await offer_campaigns(context.engine, prefect)


@retried("show depths")
async def publish_depths() -> list[Depth]:
    async with open_context() as context:
        depths = [await Depth.of(await context.queue(name)) for name in DEFAULT_QUEUES]
    rows = [depth.row() for depth in depths]
    if not await renew_table("queues", rows, TITLE):
        await publish_table("queues", rows, TITLE)
    return depths
