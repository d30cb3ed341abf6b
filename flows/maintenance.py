"""Maintains queues and ledger."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from postroad.printable import counted
from tasks.maintain import (
    delete_attachments,
    delete_old_bounce_mails,
    delete_old_events,
    delete_old_rows,
    list_in_form,
    publish_depths,
    reap_and_promote,
    rebuild_missing,
    tidy_ledger,
)
from tasks.report import announce


@flow(name="maintenance")
async def maintenance() -> State[None]:
    """Maintain the queues and the ledger.

    Releases the jobs of dead workers, rebuilds jobs that the queue lost, deletes old rows, and shows the depths of the
    queues. It also updates the list of campaigns in the form of `campaign`. It causes no duplicate message: the ledger
    admits each message before it is sent.
    """
    moved = await reap_and_promote()
    await tidy_ledger()
    deleted = await delete_old_rows()
    mails = await delete_old_bounce_mails()
    events = await delete_old_events()
    attachments = await delete_attachments()
    rebuilt = await rebuild_missing()
    await list_in_form()
    depths = await publish_depths()
    missing = "no job is missing"
    if rebuilt is not None and (rebuilt.enqueued or rebuilt.unknown):
        missing = f"{counted(rebuilt.enqueued, 'missing job')} enqueued again, {rebuilt.unknown:,} unknown"
        announce(
            "postroad.queue.mended",
            "postroad.queue.email:send",
            "email:send",
            {"enqueued": rebuilt.enqueued, "unknown": rebuilt.unknown},
        )
    old = ""
    if any(deleted) or mails or events or attachments:
        old = (
            f"; deleted for their age: {counted(deleted.touches, 'touch', 'touches')}, "
            f"{counted(deleted.events, 'event')}, {counted(deleted.bounce_effects, 'effect')} of bounces, "
            f"{counted(mails, 'returned mail')}, {counted(events, 'event')} of recipients, "
            f"{counted(attachments, 'attachment')}"
        )
    return Completed(message=f"{sum(d.queued for d in depths):,} queued, {moved:,} moved; {missing}{old}")
