"""Preflight: checks a campaign before any of its messages is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from postroad.campaign.file_trial import FileTrial, try_file
from postroad.campaign.frequency import require_class
from postroad.campaign.message import step_message
from postroad.campaign.trial import RenderingFault, StepTrial, TrialResult, try_audience
from postroad.clock import SystemClock
from postroad.dns.finding import Finding as DnsFinding
from postroad.dns.finding import failures, in_words
from postroad.dns.identity import is_reserved
from postroad.errors import ConfigError, DataError, PreflightError
from postroad.mail.message import CompiledMessage
from postroad.mail.token import TokenSigner
from postroad.settings import Settings
from postroad.settings.frequency import NORMAL
from postroad.store.campaign import Campaign, StepKind, find_campaign, steps_of
from postroad.store.dns_report import last_report, open_holds
from postroad.store.engine import read
from postroad.store.frequency import FrequencyRule, over_cap_in_audience

RENDERING_S: Final = 600.0
"""Processor time for renderings, in seconds. A million recipients of an ordinary template take at most a minute."""


class Level(StrEnum):
    """Severity of a finding: a fail prevents the launch."""

    FAIL = "fail"
    WARN = "warn"


@dataclass(frozen=True, kw_only=True)
class PreflightFinding:
    """One problem and its remedy.

    ``recipients``: number of affected recipients, unset if the campaign as a whole is affected; ``examples``: some of
    their addresses.
    """

    level: Level
    what: str
    remedy: str
    recipients: int | None = None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """All findings of a preflight."""

    campaign: str
    recipients: int
    findings: tuple[PreflightFinding, ...]
    file: FileTrial | None = None
    """Trial of the file that the launch would import first."""

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
    budget_s: float = RENDERING_S,
    progress: Callable[[int, int], None] | None = None,
) -> PreflightReport:
    """Check a campaign in the database, and render its steps for its audience.

    Args:
        engine: The database.
        settings: The settings.
        signer: Signer of the links in renderings.
        name: Name of the campaign.
        file: The CSV that the launch imports first, if it imports one. It is read, but not imported.
        budget_s: Processor time for renderings, in seconds. If it does not suffice, the report has a warning.
        progress: Called with the number of recipients, or bytes of the file, that are done, and with the total.

    Returns:
        The report.

    Raises:
        StateError: No campaign has that name.
    """
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        recipients = _count_recipients(connection, campaign)
        step_findings, trials = _check_steps(connection, settings, signer, campaign)
        findings = [
            *(_check_audience(connection, campaign, recipients) if file is None else ()),
            *_check_settings(connection, settings, campaign),
            *_check_dns(connection, settings, campaign),
            *step_findings,
        ]
    coming = FileTrial()
    if file is not None:
        try:
            coming = try_file(engine, campaign.audience_id, file, trials, budget_s=budget_s, progress=progress)
            findings += _check_file(file, coming, recipients)
        except DataError as error:
            findings.append(_fail(f"{error.where}: {error.message}", error.remedy or "Correct the file."))
    tried = try_audience(
        engine,
        campaign.audience_id,
        trials,
        total=recipients,
        budget_s=budget_s,
        progress=progress,
        excluded=coming.known,
    )
    tried = TrialResult(recipients=tried.recipients + coming.tried, total=tried.total + len(coming.known))
    findings += _check_renderings(trials, tried)
    imported = coming if file is not None else None
    return PreflightReport(campaign=name, recipients=recipients + coming.new, findings=tuple(findings), file=imported)


def _id(campaign: Campaign) -> int:
    assert campaign.id is not None  # noqa: S101  (read from its table)
    return campaign.id


def _count_recipients(connection: sa.Connection, campaign: Campaign) -> int:
    statement = sa.text("SELECT count(*) FROM audience_member WHERE audience_id = :id")
    return int(connection.execute(statement, {"id": campaign.audience_id}).scalar_one())


def _fail(what: str, remedy: str) -> PreflightFinding:
    return PreflightFinding(level=Level.FAIL, what=what, remedy=remedy)


def _check_file(file: Path, coming: FileTrial, recipients: int) -> Iterator[PreflightFinding]:
    if coming.refused:
        yield PreflightFinding(
            level=Level.WARN,
            what=f"{coming.refused:,} of {coming.rows:,} rows of {file} are not valid and are not imported",
            remedy="`postroad audience refusals NAME` shows them after the import.",
        )
    if not recipients + coming.new:
        yield _fail(f"{file} has no valid row, and the audience is empty", "Add recipients to the file.")


def _check_audience(connection: sa.Connection, campaign: Campaign, recipients: int) -> Iterator[PreflightFinding]:
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
        yield _fail(
            f"the import of {path} was interrupted",
            "Import that file again to resume the import, or end it: `postroad audience abandon NAME`.",
        )
    if recipients == 0:
        audience = connection.execute(
            sa.text("SELECT name FROM audience WHERE id = :id"), {"id": campaign.audience_id}
        ).scalar_one()
        yield _fail(
            f"its audience {audience!r} is empty",
            f"Import a CSV: `postroad audience import {audience} FILE`. If another audience is meant, correct "
            "audience.name in the campaign's file.",
        )


def _check_settings(connection: sa.Connection, settings: Settings, campaign: Campaign) -> Iterator[PreflightFinding]:
    for sender, route in _senders(connection, campaign, "name, route"):
        if route not in settings.routes:
            yield _fail(f"its sender's route {route!r} is not in postroad.toml", f"Add a section [routes.{route}].")
        if sender in settings.senders and not settings.senders[sender].dkim:
            what = f"its sender {sender} has no DKIM key: unless the relay signs, Gmail and Yahoo reject bulk mail"
            yield PreflightFinding(level=Level.WARN, what=what, remedy="Create one: `postroad dkim keygen`.")
    if (urlsplit(settings.public_url).hostname or "").endswith(".invalid"):  # RFC 6761 §6.4: never resolves.
        yield _fail(
            "public_url is not set, so the unsubscribe links would lead nowhere",
            "Set public_url in postroad.toml to the URL at which recipients reach `postroad web`.",
        )
    elif not settings.public_url.startswith("https://"):
        what = f"public_url {settings.public_url} is not https, so receivers offer no one-click unsubscribe (RFC 8058)"
        yield PreflightFinding(level=Level.WARN, what=what, remedy="Set public_url to an https address.")
    yield from _check_frequency(connection, settings, campaign)


def _check_frequency(connection: sa.Connection, settings: Settings, campaign: Campaign) -> Iterator[PreflightFinding]:
    """Yield the number of recipients who are over the campaign's frequency cap now."""
    try:
        require_class(campaign.frequency, settings.frequency, where="frequency")
    except ConfigError as error:
        yield _fail(error.message, error.remedy or "")
        return
    rule = FrequencyRule(caps=settings.frequency, now=SystemClock().now())
    over = over_cap_in_audience(connection, _id(campaign), rule)
    if over:
        name = campaign.frequency or NORMAL
        effect = "skipped" if campaign.frequency_skip else "sent later"
        yield PreflightFinding(
            level=Level.WARN,
            what=f"{over:,} recipients are over the frequency cap {name} ({settings.frequency[name]}) now",
            remedy=f"Their messages are {effect}. `frequency: ignore` in the campaign's file sends them at once.",
            recipients=over,
        )


def _check_dns(connection: sa.Connection, settings: Settings, campaign: Campaign) -> Iterator[PreflightFinding]:
    """Yield findings of the last DNS check of each sender. There are no lookups here: see `postroad dns senders`."""
    for (sender,) in _senders(connection, campaign, "address"):
        yield from _check_sender_dns(connection, settings, sender)


def _senders(connection: sa.Connection, campaign: Campaign, columns: str) -> list[sa.Row[Any]]:
    """Return columns of the campaign's sender and of its overflow senders."""
    ids = [campaign.sender_id, *(campaign.overflow["senders"] if campaign.overflow else [])]
    statement = sa.text(f"SELECT {columns} FROM sender WHERE id IN :ids ORDER BY id")
    return list(connection.execute(statement.bindparams(sa.bindparam("ids", ids, expanding=True))))


def _check_sender_dns(connection: sa.Connection, settings: Settings, sender: str) -> Iterator[PreflightFinding]:
    report = last_report(connection, sender)
    if report is None:
        if not is_reserved(sender.rpartition("@")[2].lower()):
            remedy = "Run `postroad dns senders --check`, or the deployment `dns-health`."
            yield PreflightFinding(level=Level.WARN, what=f"the DNS of {sender} was not checked yet", remedy=remedy)
        return
    failing = failures(msgspec.convert(report.findings, list[DnsFinding]))
    if failing:
        level = Level.FAIL if settings.dns_health.preflight == "fail" else Level.WARN
        what = f"the DNS of {sender} fails, as of {report.checked_at:%Y-%m-%d %H:%M} UTC: {in_words(failing)}"
        remedy = f"`postroad dns check {report.domain}` shows what to publish."
        yield PreflightFinding(level=level, what=what, remedy=remedy)
    hold = open_holds(connection).get(sender)
    if hold is not None and hold.held_at is not None:
        what = f"mail of {sender} is held back since {hold.held_at:%Y-%m-%d %H:%M} UTC: its DNS fails"
        yield PreflightFinding(level=Level.WARN, what=what, remedy="It is sent automatically when the DNS is fixed.")


def _check_steps(
    connection: sa.Connection, settings: Settings, signer: TokenSigner, campaign: Campaign
) -> tuple[list[PreflightFinding], list[StepTrial]]:
    """Check each step by itself. Returns what is wrong, and trials of the steps that compile."""
    findings: list[PreflightFinding] = []
    trials: list[StepTrial] = []
    for step in steps_of(connection, _id(campaign)):
        if step.kind is not StepKind.EMAIL or step.id is None:
            continue
        try:
            messages = [
                step_message(connection, step.id, signer, settings.public_url, sender_id=sender).message
                for (sender,) in _senders(connection, campaign, "id")
            ]
        except ConfigError as error:
            findings.append(
                _fail(f"{error.where}: {error.message}", "Correct the template, and apply the campaign again.")
            )
            continue
        findings += _check_bodies(messages[0])
        trials.append(StepTrial(messages))
    return findings, trials


def _check_bodies(message: CompiledMessage) -> Iterator[PreflightFinding]:
    for body in (message.text, message.html):
        for field, why in (
            ("unsubscribe_url", "every message must have an unsubscribe link"),
            ("postal_address", "every message must have the sender's postal address"),
        ):
            if body is not None and field not in body.fields:
                yield _fail(f"{body.name} has no {{{{ {field} }}}}", f"Add {{{{ {field} }}}}: {why}.")


def _check_renderings(trials: list[StepTrial], tried: TrialResult) -> Iterator[PreflightFinding]:
    for trial in trials:
        for fault in trial.faults:
            yield PreflightFinding(
                level=Level.FAIL,
                what=f"{fault.what} (for {_recipients(fault)})",
                remedy=_RENDERING_REMEDY,
                recipients=fault.recipients,
                examples=tuple(fault.examples),
            )
        for name, recipients in sorted(trial.shadowed.items()):
            what = f"{trial.name} shows {{{{ {name} }}}}, which is Postroad's value"
            yield PreflightFinding(
                level=Level.WARN,
                what=f"{what} and not the column of {recipients:,} recipients",
                remedy="Rename the column to show its values.",
                recipients=recipients,
            )
    if tried.recipients < tried.total:
        yield PreflightFinding(
            level=Level.WARN,
            what=f"only the first {tried.recipients:,} of {tried.total:,} recipients were tried: rendering is slow",
            remedy="Use fewer loops and conditions on merge fields, or prepare the values in the CSV.",
        )


_RENDERING_REMEDY = (
    "`postroad campaign preview NAME --recipient ADDRESS` shows the error. A template can handle a missing field: "
    "{{ field|default('…') }}, {% if … %}."
)


def _recipients(fault: RenderingFault) -> str:
    others = fault.recipients - len(fault.examples)
    return ", ".join(fault.examples) + (f" and {others:,} others" if others else "")
