"""The DNS of all senders is looked after."""

from __future__ import annotations

import asyncio

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from postroad.dns.finding import RecordVerdict
from postroad.printable import counted
from tasks.dns import (
    announce_changes,
    check_senders,
    list_senders,
    publish_canaries,
    publish_health,
    send_canaries,
    slices,
    sync_holds,
)


@flow(name="dns-health")
async def dns_health() -> State[None]:
    """Check what receivers see of every sender: SPF, DKIM, DMARC, MX, PTR, blocklists and more.

    What was found is kept, compared with the check before, and shown under Artifacts with the records to publish. A
    domain that fails for longer than its grace period holds its sender back; when it is mended, mail goes out again.
    Where the settings name a mailbox for canaries, each sender writes to it, and what its receiver says is compared.
    Runs by itself every six hours, and whenever you start it.
    """
    chunks = slices(await list_senders())
    outcomes = await asyncio.gather(*(check_senders(chunk) for chunk in chunks), return_exceptions=True)
    results = [result for outcome in outcomes if not isinstance(outcome, BaseException) for result in outcome]
    # One sender with a fault must not keep the others from being held back or let go.
    await sync_holds()
    await publish_health(results)
    announce_changes(results)
    await publish_canaries(await send_canaries())
    faults = [str(outcome) for outcome in outcomes if isinstance(outcome, BaseException)]
    if faults:
        return Failed(message="; ".join(faults))
    failing = sum(result.verdict is RecordVerdict.FAIL for result in results)
    held = sum(result.held for result in results)
    return Completed(message=f"{counted(len(results), 'sender')} checked, {failing} with faults, {held} held back")
