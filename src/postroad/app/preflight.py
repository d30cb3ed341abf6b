"""Preflight with the checks that need the network, as the settings or the caller have them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from postroad.app.context import AppContext
from postroad.campaign.approval import has_begun
from postroad.campaign.audience_file import AudienceFile, audience_file
from postroad.campaign.content import CheckedContent
from postroad.campaign.finding import PreflightCode, PreflightFinding, campaign_finding
from postroad.campaign.link_check import LinkChecker, follow_links
from postroad.campaign.preflight import PreflightReport, check
from postroad.campaign.rollout import Rollout, share_totals
from postroad.campaign.spam_score import spam_finding
from postroad.dns.public_address import networks
from postroad.errors import DataError, PreflightError
from postroad.senders.rollout import messages_needed
from postroad.smtp.tls import client_context
from postroad.store.campaign import find_campaign
from postroad.store.engine import read

Progress = Callable[[str, int, int], None]
"""Called with a description of the work, how much is done, and the total."""


async def preflight(
    context: AppContext,
    name: str,
    *,
    file: Path | None = None,
    links: bool | None = None,
    progress: Progress | None = None,
) -> PreflightReport:
    """Check a campaign before its launch.

    Args:
        context: The open parts.
        name: Name of the campaign.
        file: The CSV that the launch imports first, if it imports one.
        links: Whether to follow links. None: as the setting `preflight.links` has it.
        progress: Called while the work is done.

    Returns:
        The report.

    Raises:
        StateError: No campaign has that name.
        UnavailableError: The database is unavailable.
    """
    report = progress or (lambda _what, _done, _total: None)
    checked = await asyncio.to_thread(
        check,
        context.engine,
        context.settings,
        context.signer,
        name,
        file=file,
        now=context.clock.now(),
        progress=lambda done, total: report("checking", done, total),
    )
    settings = context.settings.preflight
    findings = await asyncio.to_thread(_rollout_findings, context, name, checked.recipients)
    if settings.links if links is None else links:
        trust = await asyncio.to_thread(client_context)
        checker = LinkChecker(await context.resolver(), trust, networks(settings.allowed_networks))
        findings += await follow_links(checker, checked.contents, lambda done, total: report("links", done, total))
    if settings.rspamd is not None:
        for done, content in enumerate(checked.contents, start=1):
            findings += await _score(context, settings.rspamd, content)
            report("spam score", done, len(checked.contents))
    return replace(checked, findings=(*checked.findings, *findings), contents=())


async def preflight_with_file(
    context: AppContext, name: str, *, links: bool | None = None, progress: Progress | None = None
) -> tuple[PreflightReport, AudienceFile | None]:
    """Check a campaign before its launch, with the file that the launch imports first.

    Args:
        context: The open parts.
        name: Name of the campaign.
        links: Whether to follow links. None: as the setting `preflight.links` has it.
        progress: Called while the work is done.

    Returns:
        The report, and the file of the campaign's audience, if it names one.

    Raises:
        StateError: No campaign has that name.
        PreflightError: The file cannot be read.
        UnavailableError: The database is unavailable.
    """
    try:
        file = await asyncio.to_thread(audience_file, context.engine, name)
    except DataError as error:
        raise PreflightError(
            f"the file of its audience is not readable: {error.message}",
            where=error.where,
            remedy="Restore the file, or correct audience.file and apply the campaign again. If only the host of "
            "Prefect's worker has the file, launch the campaign there.",
        ) from None
    path = file.path if file is not None and file.to_import else None
    return await preflight(context, name, file=path, links=links, progress=progress), file


def _rollout_findings(context: AppContext, name: str, recipients: int) -> list[PreflightFinding]:
    """Find a first share that is too small for the test which lets the next one go."""
    with read(context.engine) as connection:
        campaign = find_campaign(connection, name)
    rollout, needed = Rollout.of(campaign), messages_needed(context.settings)
    if rollout is None or not recipients or has_begun(campaign):
        return []
    first = share_totals(recipients, rollout.shares)[0]
    if first >= needed:
        return []
    what = f"the first share of the rollout has {first:,} people, and the test of its outcomes needs {needed:,}"
    remedy = f"Make it larger, or let the next share go yourself: `postroad campaign widen {name}`."
    return [campaign_finding(PreflightCode.ROLLOUT_SMALL, what, remedy)]


async def _score(context: AppContext, url: str, content: CheckedContent) -> list[PreflightFinding]:
    """Return the score of a step's message for its first recipient. Without a recipient there is no message."""
    trial = content.step.trial
    if not trial.samples:
        return []
    address, attributes = trial.samples[0]
    try:
        message = trial.message.merge(0, address, attributes, context.clock.now())
    except DataError:  # A template may choose at random.
        return []
    return [await spam_finding(url, trial.name, message)]
