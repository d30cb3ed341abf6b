"""What came back is fetched."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from postroad.printable import counted
from tasks.bounces import fetch, list_sources, publish_fetched
from tasks.cohorts import announce_pauses


@flow(name="bounces")
async def bounces() -> State[None]:
    """Fetch what came back: bounces, complaints, unsubscribes and replies.

    Looks at every Maildir and IMAP server of the settings and puts what is waiting there on the queue
    bounce:process, where a worker judges it. A mail is put aside at its source only when it is kept, so a run
    that dies loses nothing, and one that is repeated judges nothing twice. Without sources there is nothing to fetch.
    Then it tells of lists whose mail was paused for what came back: the event postroad.cohort.paused.
    """
    passes, failed = [], []
    for source in list_sources():
        try:
            passes.append(await fetch(source))
        except Exception as error:
            # One mailbox that is away must not hold up the others. Its task run shows where it came from.
            failed.append(f"{source}: {error}")

    await publish_fetched(passes)
    paused = await announce_pauses()
    if failed:
        return Failed(message="; ".join(failed))
    told = f"; {counted(len(paused), 'list is', 'lists are')} paused" if paused else ""
    return Completed(
        message=f"{counted(sum(p.taken for p in passes), 'mail')} from {counted(len(passes), 'source')}{told}"
    )
