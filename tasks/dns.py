"""Steps that check the DNS of senders."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Sequence
from typing import Any, Final

from prefect.runtime import task_run

from postroad.app.context import open_context
from postroad.canary.probe import CanaryReport, send_canary
from postroad.delivery.job import MAIL_QUEUES
from postroad.dns.finding import Finding, RecordVerdict, in_words
from postroad.dns.health import check_identity
from postroad.dns.show import markdown
from postroad.errors import UnavailableError
from postroad.senders.dns_health import (
    HealthStep,
    SenderHealth,
    close_stale_holds,
    identity_of,
    record,
    senders_to_check,
)
from postroad.senders.volume import with_volume
from tasks.policy import dns_slot, retried
from tasks.report import announce, publish_markdown, publish_sentences, publish_table
from tasks.slices import MAX_SLICES

RETRIES: Final = 2
DELAYS_S: Final = [2.0, 10.0]
"""A busy resolver replies again within two seconds, a restarted one within ten."""


@retried("list senders")
async def list_senders() -> list[str]:
    async with open_context() as context:
        return senders_to_check(context.settings)


def slices(senders: Sequence[str]) -> list[list[str]]:
    """Split the senders into slices: one for each sender, up to `MAX_SLICES`."""
    size = -(-len(senders) // MAX_SLICES) or 1
    return [list(senders[start : start + size]) for start in range(0, len(senders), size)]


@retried("check DNS", run_name="check DNS of {senders}", retries=RETRIES, delays_s=DELAYS_S)
async def check_senders(senders: list[str]) -> list[SenderHealth]:
    """Check senders, store the reports, and hold or release the senders.

    A name that does not exist is a result. A query without an answer is repeated twice. Then the report is stored
    without it, which neither fails a domain nor ends its failure.

    Returns:
        The result of each sender.

    Raises:
        UnavailableError: A query got no answer, and retries are left.
    """
    results = []
    async with dns_slot(), open_context() as context:
        trust = await asyncio.to_thread(ssl.create_default_context)
        resolver = await context.resolver()
        reports = await asyncio.gather(
            *(
                check_identity(resolver, identity_of(context.settings, name, os.environ), context.clock, trust)
                for name in senders
            )
        )
        reports = await with_volume(resolver, context.engine, reports, context.clock.now())
        unanswered = [report.domain for report in reports if report.unanswered]
        if unanswered and task_run.run_count <= RETRIES:
            raise UnavailableError(f"DNS gave no answer about {', '.join(unanswered)}")
        for name, report in zip(senders, reports, strict=True):
            address = context.settings.sender(name).address
            results.append(
                await asyncio.to_thread(record, context.engine, address, report, context.settings.dns_health)
            )
    return results


@retried("hold back or let go")
async def sync_holds() -> None:
    """Sync the gates of the queues with the holds in the store."""
    async with open_context() as context:
        await asyncio.to_thread(close_stale_holds, context.engine, context.settings, context.clock.now())
        for name in MAIL_QUEUES:
            await context.gates(await context.queue(name), releasing=True).apply()


@retried("send canaries", retries=RETRIES, delays_s=DELAYS_S)
async def send_canaries() -> list[CanaryReport]:
    """Send the canary of each sender, if the settings name a mailbox for them."""
    async with open_context() as context:
        if context.settings.canary is None:
            return []
        resolver = await context.resolver()
        sending = (
            send_canary(
                context.settings,
                name,
                engine=context.engine,
                resolver=resolver,
                signer=context.signer,
                clock=context.clock,
                environ=os.environ,
            )
            for name in context.settings.senders
        )
        return await asyncio.gather(*sending)


async def publish_canaries(reports: Sequence[CanaryReport]) -> None:
    """Show the results of each sender's canary, and announce those that fail."""
    if not reports:
        return
    rows = [
        {"sender": report.sender, "verdict": str(f.verdict), "about": f.subject, "seen, and what to do": _advice(f)}
        for report in reports
        for f in report.findings
    ]
    await publish_sentences(
        "canaries", rows, f"How a receiver evaluated the mail of {len(reports)} senders.", only_changes=True
    )
    for report in reports:
        if report.verdict is RecordVerdict.FAIL:
            failing = [finding for finding in report.findings if finding.verdict is RecordVerdict.FAIL]
            payload = {"sender": report.sender, "why": in_words(failing)}
            announce("postroad.canary.failed", f"postroad.sender.{report.sender}", report.sender, payload)


async def publish_health(results: Sequence[SenderHealth]) -> None:
    """Show all senders in a table, and a page with remedies for each that has findings or has changed."""
    rows = [_row(result) for result in results]
    await publish_table("dns-health", rows, f"DNS findings of {len(rows)} senders.", only_changes=True)
    for result in results:
        if result.verdict in (RecordVerdict.WARN, RecordVerdict.FAIL) or result.change.new or result.change.gone:
            page = markdown(result.domain, result.verdict, result.findings, result.change)
            title = f"The DNS of {result.sender}"
            await publish_markdown(artifact_key(result.sender), page, title, only_changes=True)


def artifact_key(sender: str) -> str:
    """Return the artifact key of a sender. It may contain lowercase letters, digits and dashes."""
    return f"dns-{re.sub('[^a-z0-9]+', '-', sender.lower()).strip('-')}"


def _advice(finding: Finding) -> str:
    return f"{finding.seen} {finding.remedy}".strip()


def _row(result: SenderHealth) -> dict[str, Any]:
    return {
        "sender": result.sender,
        "verdict": str(result.verdict),
        "new": len(result.change.new),
        "gone": len(result.change.gone),
        "held back": "yes" if result.held else "no",
    }


def announce_changes(results: Sequence[SenderHealth]) -> None:
    """Emit an event for each difference from the last check."""
    for result in results:
        domain, fails = f"postroad.domain.{result.domain}", result.verdict is RecordVerdict.FAIL
        payload = {"sender": result.sender, "verdict": str(result.verdict), "why": result.why}
        if fails != (result.before is RecordVerdict.FAIL) and (fails or result.before is not None):
            word = "unhealthy" if fails else "healthy"
            announce(f"postroad.domain.{word}", domain, result.domain, payload)
        if result.step in (HealthStep.HELD, HealthStep.RELEASED):
            announce(f"postroad.sender.{result.step}", f"postroad.sender.{result.sender}", result.sender, payload)
