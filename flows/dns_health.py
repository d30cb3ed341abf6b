"""Checks the DNS of all senders."""

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

    The findings are stored, compared with the last check, and shown under Artifacts with the records to publish. A
    domain that fails for longer than its grace period holds its sender. The sender is released when its domain passes
    again. If the settings name a mailbox for canaries, each sender sends a message to it, and its receiver's results
    are compared. It runs every six hours, and whenever you start it.
    """
    chunks = slices(await list_senders())
    outcomes = await asyncio.gather(*(check_senders(chunk) for chunk in chunks), return_exceptions=True)
    results = [result for outcome in outcomes if not isinstance(outcome, BaseException) for result in outcome]
    # One failing check must not prevent other senders from being held or released.
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
