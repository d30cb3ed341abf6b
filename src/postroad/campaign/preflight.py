"""Preflight: everything that can be found wrong with a campaign before anything of it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from postroad.campaign.message import StepMessage, step_message
from postroad.dns.finding import Finding as DnsFinding
from postroad.dns.finding import failures, in_words
from postroad.dns.identity import is_reserved
from postroad.errors import ConfigError, DataError, PreflightError
from postroad.mail.template import RESERVED
from postroad.mail.token import TokenSigner
from postroad.settings import Settings
from postroad.store.campaign import Campaign, StepKind, find_campaign, steps_of
from postroad.store.dns_report import last_report, open_holds
from postroad.store.engine import read


class Level(StrEnum):
    """How much a finding matters: a fail stops the launch."""

    FAIL = "fail"
    WARN = "warn"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, and how to mend it."""

    level: Level
    what: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """All that was found."""

    campaign: str
    recipients: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not any(finding.level is Level.FAIL for finding in self.findings)

    def require_ok(self) -> None:
        """Raises PreflightError, which says all that stops the launch."""
        fails = [finding for finding in self.findings if finding.level is Level.FAIL]
        if fails:
            raise PreflightError(
                f"campaign {self.campaign} may not be launched: {'; '.join(finding.what for finding in fails)}",
                remedy=" ".join(dict.fromkeys(finding.remedy for finding in fails)),
            )


def check(
    engine: sa.Engine, settings: Settings, signer: TokenSigner, name: str, *, before_import: bool = False
) -> PreflightReport:
    """Check a campaign as it stands in the store. Raises StateError when there is none of that name.

    ``before_import``: the launch imports the audience's file first, so an audience that is empty or cut short is no
    finding yet.
    """
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        recipients = int(
            connection.execute(
                sa.text("SELECT count(*) FROM audience_member WHERE audience_id = :id"), {"id": campaign.audience_id}
            ).scalar_one()
        )
        findings = [
            *(() if before_import else _check_audience(connection, campaign, recipients)),
            *_check_settings(connection, settings, campaign),
            *_check_dns(connection, settings, campaign),
            *_check_steps(connection, settings, signer, campaign),
        ]
    return PreflightReport(campaign=name, recipients=recipients, findings=tuple(findings))


def _fail(what: str, remedy: str) -> Finding:
    return Finding(level=Level.FAIL, what=what, remedy=remedy)


def _check_audience(connection: sa.Connection, campaign: Campaign, recipients: int) -> Iterator[Finding]:
    # A file that was changed meanwhile, and imported anew, need not be finished as it was.
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
            f"the import of {path} was cut short",
            "Import that file again: it goes on where it stopped. Or give it up: `postroad audience abandon NAME`.",
        )
    if recipients == 0:
        yield _fail("its audience is empty", "Import a CSV: `postroad audience import NAME FILE`.")


def _check_settings(connection: sa.Connection, settings: Settings, campaign: Campaign) -> Iterator[Finding]:
    for sender, route in _senders(connection, campaign, "name, route"):
        if route not in settings.routes:
            yield _fail(f"its sender's route {route!r} is not in postroad.toml", f"Add a section [routes.{route}].")
        if sender in settings.senders and not settings.senders[sender].dkim:
            what = f"its sender {sender} has no DKIM key: unless the relay signs, Gmail and Yahoo refuse bulk mail"
            yield Finding(level=Level.WARN, what=what, remedy="Make one: `postroad dkim keygen`.")
    if (urlsplit(settings.public_url).hostname or "").endswith(".invalid"):  # RFC 6761 §6.4: there is no such host.
        yield _fail(
            "public_url is not set, so the unsubscribe links would lead nowhere",
            "Set public_url in postroad.toml to where recipients reach `postroad web`.",
        )
    elif not settings.public_url.startswith("https://"):
        what = f"public_url {settings.public_url} is not https, so receivers offer no one-click unsubscribe (RFC 8058)"
        yield Finding(level=Level.WARN, what=what, remedy="Set public_url to an https address.")


def _check_dns(connection: sa.Connection, settings: Settings, campaign: Campaign) -> Iterator[Finding]:
    """What the last check of its sender's DNS found. Nothing is looked up here: `postroad dns senders` does."""
    for (sender,) in _senders(connection, campaign, "address"):
        yield from _check_sender_dns(connection, settings, sender)


def _senders(connection: sa.Connection, campaign: Campaign, columns: str) -> list[sa.Row[Any]]:
    """Of the campaign's sender, and of those who take what it cannot carry."""
    ids = [campaign.sender_id, *(campaign.overflow["senders"] if campaign.overflow else [])]
    statement = sa.text(f"SELECT {columns} FROM sender WHERE id IN :ids ORDER BY id")
    return list(connection.execute(statement.bindparams(sa.bindparam("ids", ids, expanding=True))))


def _check_sender_dns(connection: sa.Connection, settings: Settings, sender: str) -> Iterator[Finding]:
    report = last_report(connection, sender)
    if report is None:
        if not is_reserved(sender.rpartition("@")[2].lower()):
            remedy = "Run `postroad dns senders --check`, or the deployment `dns-health`."
            yield Finding(level=Level.WARN, what=f"the DNS of {sender} was not checked yet", remedy=remedy)
        return
    failing = failures(msgspec.convert(report.findings, list[DnsFinding]))
    if failing:
        level = Level.FAIL if settings.dns_health.preflight == "fail" else Level.WARN
        what = f"the DNS of {sender} fails, as of {report.checked_at:%Y-%m-%d %H:%M} UTC: {in_words(failing)}"
        remedy = f"`postroad dns check {report.domain}` says what to publish."
        yield Finding(level=level, what=what, remedy=remedy)
    hold = open_holds(connection).get(sender)
    if hold is not None and hold.held_at is not None:
        what = f"mail of {sender} is held back since {hold.held_at:%Y-%m-%d %H:%M} UTC: its DNS fails"
        yield Finding(level=Level.WARN, what=what, remedy="It goes out by itself when the DNS is mended.")


def _check_steps(
    connection: sa.Connection, settings: Settings, signer: TokenSigner, campaign: Campaign
) -> Iterator[Finding]:
    assert campaign.id is not None  # noqa: S101  (read from its table)
    for step in steps_of(connection, campaign.id):
        if step.kind is not StepKind.EMAIL or step.id is None:
            continue
        try:
            compiled = step_message(connection, step.id, signer, settings.public_url)
        except ConfigError as error:
            yield _fail(f"{error.where}: {error.message}", "Mend the template, and apply the campaign again.")
            continue
        bodies = [compiled.message.text, *([compiled.message.html] if compiled.message.html else [])]
        for body in bodies:
            for field, why in (
                ("unsubscribe_url", "every message shows a way out"),
                ("postal_address", "every message says where its sender is"),
            ):
                if field not in body.fields:
                    yield _fail(f"{body.name} has no {{{{ {field} }}}}", f"Put {{{{ {field} }}}} into it: {why}.")
        yield from _check_fields(connection, campaign, compiled)


def _check_fields(connection: sa.Connection, campaign: Campaign, compiled: StepMessage) -> Iterator[Finding]:
    """Render the step once for each set of merge fields that recipients have: what one lacks is found for all."""
    names = sorted(compiled.message.fields - RESERVED)
    failing: dict[str, tuple[str, int]] = {}  # what is wrong: one recipient that it is wrong for, and how many
    for attributes, address, count in _samples(connection, campaign.audience_id, names):
        try:
            fields = {name: attributes[name] for name in names if name in attributes}
            merged = {**fields, **compiled.message.reserved_fields(0, address)}
            for part in (compiled.message.subject, compiled.message.text, compiled.message.html):
                if part is not None:
                    part.render(merged)
        except DataError as error:
            what = f"{error.where}: {error.message}"
            first, others = failing.get(what, (address, 0))
            failing[what] = (first, others + count)
    for what, (address, count) in failing.items():
        yield _fail(
            f"{what} (for {address}{f' and {count - 1:,} others' if count > 1 else ''})",
            "Give these recipients the field, or the template a default: {{ field|default('…') }}.",
        )


def _samples(connection: sa.Connection, audience_id: int, names: list[str]) -> list[tuple[dict[str, Any], str, int]]:
    """One recipient, with the number that it stands for, of each set of these merge fields that recipients have."""
    present = (
        "json_type(recipient.attributes, '$.{name}') IS NOT NULL"
        if connection.dialect.name == "sqlite"
        else "jsonb_exists(recipient.attributes, '{name}')"
    )
    patterns = ", ".join(present.format(name=name) for name in names)
    group = f"GROUP BY {patterns}" if names else ""
    statement = sa.text(
        "SELECT r.attributes AS attributes, r.address AS address, n "
        "FROM (SELECT min(recipient.id) AS id, count(*) AS n FROM audience_member "
        "JOIN recipient ON recipient.id = audience_member.recipient_id "
        f"WHERE audience_id = :audience_id {group}) AS sample JOIN recipient AS r ON r.id = sample.id ORDER BY r.id"
    ).columns(sa.column("attributes", sa.JSON()), sa.column("address", sa.Text()), sa.column("n", sa.Integer()))
    return [(row.attributes, row.address, row.n) for row in connection.execute(statement, {"audience_id": audience_id})]
