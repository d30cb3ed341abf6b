"""Preflight: checks a campaign before any of its messages is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from postroad.campaign.content import AuthoredStep, CheckedContent, check_content
from postroad.campaign.entry import CampaignEntry
from postroad.campaign.file_trial import FileTrial, try_file
from postroad.campaign.finding import Level, PreflightCode, PreflightFinding, campaign_finding, step_finding
from postroad.campaign.journey_preflight import check_ways
from postroad.campaign.message import StepKey, step_message
from postroad.campaign.segment import Segment, has_members
from postroad.campaign.segment_preflight import count_for_preflight
from postroad.campaign.sender_preflight import check_dns, check_settings, senders_of
from postroad.campaign.sequential_test import min_successes
from postroad.campaign.trial import RenderingFault, StepTrial, TrialResult, try_audience
from postroad.errors import ConfigError, DataError, PreflightError
from postroad.field_types import FieldType
from postroad.mail.html_reader import HtmlBodyReader
from postroad.mail.markup_process import prepare_in_subprocess
from postroad.mail.message import CompiledMessage
from postroad.mail.token import TokenSigner
from postroad.printable import counted
from postroad.settings import Settings
from postroad.store.campaign import Campaign, Step, StepKind, find_campaign, steps_of
from postroad.store.engine import read
from postroad.store.recipient import audience_name
from postroad.store.variant_split import PERCENT, content_of, split_of, variant_names

__all__ = ["Level", "PreflightFinding", "PreflightReport", "check"]

RENDERING_S: Final = 600.0
"""Processor time for renderings, in seconds. A million recipients of an ordinary template take at most a minute.

If it does not suffice, the report has a warning.
"""


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """All findings of a preflight."""

    campaign: str
    recipients: int
    findings: tuple[PreflightFinding, ...]
    file: FileTrial | None = None
    """Trial of the file that the launch would import first."""
    contents: tuple[CheckedContent, ...] = ()

    @property
    def ok(self) -> bool:
        return not any(finding.level is Level.FAIL for finding in self.findings)

    def require_ok(self) -> None:
        """Raise PreflightError with all findings that prevent the launch."""
        fails = [finding for finding in self.findings if finding.level is Level.FAIL]
        if fails:
            raise PreflightError(
                f"campaign {self.campaign} may not be launched: {'; '.join(finding.what for finding in fails)}",
                remedy=" ".join(dict.fromkeys(finding.remedy for finding in fails)),
            )


def check(
    engine: sa.Engine,
    settings: Settings,
    signer: TokenSigner,
    name: str,
    *,
    file: Path | None = None,
    now: datetime | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreflightReport:
    """Check a campaign in the database, and render its steps for its audience.

    Args:
        engine: The database.
        settings: The settings.
        signer: Signer of the links in renderings.
        name: Name of the campaign.
        file: The CSV that the launch imports first, if it imports one. It is read, but not imported.
        now: Time of the launch, for the condition of a segment; None: the machine's time.
        progress: Called with the number of recipients, or bytes of the file, that are done, and with the total.

    Returns:
        The report.

    Raises:
        StateError: No campaign has that name.
    """
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        types = settings.field_types(audience_name(connection, campaign.audience_id))
        steps = steps_of(connection, campaign.id or 0)
        step_findings, contents = _check_steps(connection, settings, signer, campaign, steps)
        findings = list(_check_audience(connection, campaign)) if file is None else []
        findings += check_settings(connection, settings, campaign)
        findings += [*check_dns(connection, settings, campaign), *step_findings]
    trials, coming = [content.trial for content in contents], FileTrial()
    segment = Segment.of(campaign, now or datetime.now(UTC))
    if file is not None:
        coming, of_file = _try_file(engine, segment, file, trials, types, progress)
        findings += of_file
    count = count_for_preflight(engine, segment, coming, CampaignEntry.of(campaign).stays_open)
    findings += [*count.findings, *check_ways(engine, campaign, segment)]
    findings += _check_tests(campaign, steps, count.recipients + coming.new)
    findings += _try_members(engine, segment, trials, count.recipients, coming, progress)
    with HtmlBodyReader() as reader:
        checked = [check_content(content, reader, settings) for content in contents]
    return PreflightReport(
        campaign=name,
        recipients=count.recipients + coming.new,
        findings=(*findings, *(finding for each in checked for finding in each.findings)),
        file=coming if file is not None else None,
        contents=tuple(checked),
    )


def _try_file(
    engine: sa.Engine,
    segment: Segment,
    file: Path,
    trials: list[StepTrial],
    types: Mapping[str, FieldType],
    progress: Callable[[int, int], None] | None,
) -> tuple[FileTrial, list[PreflightFinding]]:
    """Try the file that the launch imports first. Return its trial, and what is wrong with the file."""
    try:
        coming = try_file(engine, segment, file, trials, types=types, budget_s=RENDERING_S, progress=progress)
    except DataError as error:
        return FileTrial(), [_unreadable(error)]
    with read(engine) as connection:
        audience = audience_name(connection, segment.audience_id)
        is_empty = not coming.new and not has_members(connection, segment.audience_id, coming.before)
    return coming, list(_check_file(file, coming, audience, is_empty=is_empty))


def _unreadable(error: DataError) -> PreflightFinding:
    what = f"{error.where}: {error.message}"
    return campaign_finding(PreflightCode.FILE_UNREADABLE, what, error.remedy or "Correct the file.")


def _try_members(
    engine: sa.Engine,
    segment: Segment,
    trials: list[StepTrial],
    recipients: int,
    coming: FileTrial,
    progress: Callable[[int, int], None] | None,
) -> list[PreflightFinding]:
    """Try the steps for the recipients of the segment, except for those of the file, who were tried."""
    tried = try_audience(
        engine, segment, trials, total=recipients, budget_s=RENDERING_S, progress=progress, excluded=coming.known
    )
    tried = TrialResult(recipients=tried.recipients + coming.tried, total=tried.total + coming.met)
    return list(_check_renderings(trials, tried))


def _check_file(file: Path, coming: FileTrial, audience: str, *, is_empty: bool) -> Iterator[PreflightFinding]:
    if coming.refused:
        yield campaign_finding(
            PreflightCode.FILE_REFUSED,
            f"{coming.refused:,} of {counted(coming.rows, 'row')} of {file} "
            f"{'is' if coming.refused == 1 else 'are'} not valid and not imported",
            f"After the import, `postroad audience refusals {audience}` and the console's page People show them.",
        )
    if is_empty:
        what = f"{file} has no valid row, and the audience is empty"
        yield campaign_finding(PreflightCode.FILE_NO_ROW, what, "Add recipients to the file.")


def _check_audience(connection: sa.Connection, campaign: Campaign) -> Iterator[PreflightFinding]:
    # An unfinished import does not matter if the file was changed and imported again.
    unfinished = connection.execute(
        sa.text(
            "SELECT DISTINCT path FROM audience_import WHERE audience_id = :id AND finished_at IS NULL "
            "AND NOT EXISTS (SELECT 1 FROM audience_import AS newer WHERE newer.audience_id = :id "
            "AND newer.path = audience_import.path AND newer.id > audience_import.id "
            "AND newer.finished_at IS NOT NULL) ORDER BY path"
        ),
        {"id": campaign.audience_id},
    ).scalars()
    for path in unfinished:
        yield campaign_finding(
            PreflightCode.AUDIENCE_INTERRUPTED,
            f"the import of {path} was interrupted",
            "Import that file again to resume the import, or end it: `postroad audience abandon NAME`.",
        )
    if not CampaignEntry.of(campaign).stays_open and not has_members(connection, campaign.audience_id):
        audience = audience_name(connection, campaign.audience_id)
        yield campaign_finding(
            PreflightCode.AUDIENCE_EMPTY,
            f"its audience {audience!r} is empty",
            f"Import a CSV: `postroad audience import {audience} FILE`. If another audience is meant, correct "
            "audience.name in the campaign's file.",
        )


def _check_steps(
    connection: sa.Connection, settings: Settings, signer: TokenSigner, campaign: Campaign, steps: Sequence[Step]
) -> tuple[list[PreflightFinding], list[AuthoredStep]]:
    """Check each step, and each of its variants, by itself. Returns what is wrong, and what compiles."""
    findings: list[PreflightFinding] = []
    contents: list[AuthoredStep] = []
    for step in steps:
        if step.kind is not StepKind.EMAIL or step.id is None:
            continue
        for variant in variant_names(step.settings) or (None,):
            try:
                messages = [
                    step_message(
                        connection, StepKey(step.id, sender, variant=variant), signer, settings.public_url
                    ).message
                    for (sender,) in senders_of(connection, campaign, "id")
                ]
            except ConfigError as error:
                what, remedy = f"{error.where}: {error.message}", "Correct the template, and apply the campaign again."
                findings.append(campaign_finding(PreflightCode.TEMPLATE_INVALID, what, remedy))
                continue
            findings += _check_bodies(messages[0])
            contents.append(_step_content(content_of(step.settings, variant), StepTrial(messages)))
    return findings, contents


def _check_tests(campaign: Campaign, steps: Sequence[Step], recipients: int) -> Iterator[PreflightFinding]:
    """Find tests of variants that cannot have a winner, because too few recipients are in them."""
    if CampaignEntry.of(campaign).stays_open:
        return
    for step in steps:
        split = split_of(step.campaign_id, step.name, step.settings)
        if split is None or split.winner is None:
            continue
        tested, needed = recipients * split.winner.at_most // PERCENT, min_successes(split.shares)
        if tested < needed:
            yield step_finding(
                PreflightCode.VARIANTS_SMALL,
                f"campaign {campaign.name}, step {step.name}",
                f"at most {tested:,} of {recipients:,} recipients test its variants, and no variant wins with fewer "
                f"than {needed} successes",
                "Raise decide.at_most, or remove winner: then everyone gets a variant by the shares, and no one waits.",
            )


def _step_content(settings: Mapping[str, Any], trial: StepTrial) -> AuthoredStep:
    text, html, mjml = settings["text"], settings["html"], settings.get("mjml")
    if mjml is not None:
        _, html = prepare_in_subprocess(text=text, html=html, mjml=mjml, name=trial.name)
    return AuthoredStep(text=text, html=html, html_lines=mjml is None, trial=trial)


def _check_bodies(message: CompiledMessage) -> Iterator[PreflightFinding]:
    for body in (message.text, message.html):
        for code, field, why in (
            (PreflightCode.BODY_NO_UNSUBSCRIBE, "unsubscribe_url", "every message must have an unsubscribe link"),
            (PreflightCode.BODY_NO_ADDRESS, "postal_address", "every message must have the sender's postal address"),
        ):
            if body is not None and field not in body.fields:
                yield campaign_finding(code, f"{body.name} has no {{{{ {field} }}}}", f"Add {{{{ {field} }}}}: {why}.")


def _check_renderings(trials: list[StepTrial], tried: TrialResult) -> Iterator[PreflightFinding]:
    for trial in trials:
        for fault in trial.faults:
            yield PreflightFinding(
                code=PreflightCode.RENDER_FAILS.word,
                level=Level.FAIL,
                what=f"{fault.what} (for {_recipients(fault)})",
                remedy=_RENDERING_REMEDY,
                recipients=fault.recipients,
                examples=tuple(fault.examples),
            )
        for name, recipients in sorted(trial.shadowed.items()):
            what = f"{trial.name} shows {{{{ {name} }}}}, which is Postroad's value"
            yield campaign_finding(
                PreflightCode.RENDER_RESERVED,
                f"{what} and not the column of {counted(recipients, 'recipient')}",
                "Rename the column to show its values.",
                recipients=recipients,
            )
    if tried.recipients < tried.total:
        yield campaign_finding(
            PreflightCode.RENDER_SLOW,
            f"only the first {tried.recipients:,} of {counted(tried.total, 'recipient')} were tried: rendering is slow",
            "Use fewer loops and conditions on merge fields, or prepare the values in the CSV.",
        )


_RENDERING_REMEDY = (
    "`postroad campaign preview NAME --recipient ADDRESS` shows the error. A template can handle a missing field: "
    "{{ field|default('…') }}, {% if … %}."
)


def _recipients(fault: RenderingFault) -> str:
    others = fault.recipients - len(fault.examples)
    return ", ".join(fault.examples) + (f" and {counted(others, 'other')}" if others else "")
