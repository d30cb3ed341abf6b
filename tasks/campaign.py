"""Steps that send a campaign."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from postroad.campaign.plan import Launched, launch
from postroad.campaign.preflight import PreflightReport, check
from postroad.campaign.status import Summary, summary
from postroad.delivery.submit import Submitted
from postroad.parts import open_parts
from tasks.policy import campaign_slot, retried
from tasks.report import ProgressBar, publish_sentences
from tasks.result import delivery_title, ended
from tasks.submit import hand_over

FOLLOW_EVERY_S: Final = 1.0


@retried("preflight")
async def preflight(campaign: str) -> PreflightReport:
    """Check all that can be checked before anybody is mailed.

    Raises PreflightError with every finding in it when the campaign may not go out.
    """
    async with campaign_slot(), open_parts() as parts:
        report = await asyncio.to_thread(check, parts.engine, parts.settings, parts.signer, campaign)
    if report.findings:
        await publish_sentences(
            f"preflight-{campaign}",
            [{"level": str(f.level), "what": f.what, "remedy": f.remedy} for f in report.findings],
            f"What was found before sending {campaign}.",
        )
    report.require_ok()
    return report


@retried("freeze the audience")
async def freeze_audience(campaign: str) -> Launched:
    """Write down who this campaign goes to. A second call finds the same people."""
    async with campaign_slot(), open_parts() as parts:
        return await asyncio.to_thread(launch, parts.engine, campaign, parts.clock.now(), parts.hash_of)


@retried("submit", run_name="submit from {cursor}", retries=5)
async def submit_slice(campaign: str, cursor: int, rows: int) -> Submitted:
    """Hand the next messages that are due to the queue, starting after `cursor`.

    A job's id derives from the ledger, so what a lost answer makes us submit twice is queued once.
    """
    async with campaign_slot(), open_parts() as parts:
        return await hand_over(parts, campaign, cursor=cursor, rows=rows)


@retried("follow delivery")
async def follow(campaign: str, follow_seconds: int) -> Summary:
    """Move the progress bar until all that is due is settled, for at most `follow_seconds`.

    Takes no slot: it only looks.
    """
    until = time.monotonic() + follow_seconds
    bar = await ProgressBar.open(f"delivery-{campaign}", delivery_title(campaign))
    async with open_parts() as parts:
        while True:
            state = await asyncio.to_thread(summary, parts.engine, campaign)
            await bar.move(ended(state), state.audience)
            left_s = until - time.monotonic()
            if state.settled or left_s <= 0:
                return state
            await asyncio.sleep(min(FOLLOW_EVERY_S, left_s))
