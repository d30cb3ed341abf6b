"""Fetches bounces from mailboxes."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from postroad.printable import counted
from tasks.bounces import fetch, list_sources, publish_fetched
from tasks.cohorts import announce_pauses


@flow(name="bounces")
async def bounces() -> State[None]:
    """Fetch bounces, complaints, unsubscribes and replies.

    Reads every Maildir and IMAP server of the settings, and enqueues their mails on bounce:process, where a worker
    classifies them. A mail is removed at its source only after it is stored. So a run that dies loses no mail, and a
    repeated run classifies no mail twice. Without sources the run fetches nothing. Then it emits the event
    postroad.cohort.paused for each cohort that was paused.
    """
    passes, failed = [], []
    for source in list_sources():
        try:
            passes.append(await fetch(source))
        except Exception as error:
            # One unavailable mailbox must not stop the others. Its task run shows the error.
            failed.append(f"{source}: {error}")

    await publish_fetched(passes)
    paused = await announce_pauses()
    if failed:
        return Failed(message="; ".join(failed))
    paused_lists = f"; {counted(len(paused), 'list is', 'lists are')} paused" if paused else ""
    return Completed(
        message=f"{counted(sum(p.taken for p in passes), 'mail')} from {counted(len(passes), 'source')}{paused_lists}"
    )
