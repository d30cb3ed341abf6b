"""Preflight of a campaign's senders: their settings, their DNS, its frequency cap and its days without mail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from postroad.campaign.calendar_preflight import check_calendar
from postroad.campaign.finding import Level, PreflightCode, PreflightFinding, campaign_finding
from postroad.campaign.frequency import require_class
from postroad.campaign.segment import Segment
from postroad.clock import SystemClock
from postroad.dns.finding import Finding as DnsFinding
from postroad.dns.finding import failures, in_words
from postroad.dns.identity import is_reserved
from postroad.errors import ConfigError
from postroad.printable import counted
from postroad.settings import Settings
from postroad.settings.frequency import NORMAL
from postroad.store.campaign import Campaign
from postroad.store.dns_report import last_report, open_holds
from postroad.store.frequency import FrequencyRule, over_cap_in_audience


def check_settings(connection: sa.Connection, settings: Settings, campaign: Campaign) -> Iterator[PreflightFinding]:
    """Yield findings about the campaign's senders, the public URL, its frequency cap and its days without mail."""
    for sender, route in senders_of(connection, campaign, "name, route"):
        if route not in settings.routes:
            what = f"its sender's route {route!r} is not in postroad.toml"
            yield campaign_finding(PreflightCode.SENDER_NO_ROUTE, what, f"Add a section [routes.{route}].")
        if sender in settings.senders and not settings.senders[sender].dkim:
            what = f"its sender {sender} has no DKIM key: unless the relay signs, Gmail and Yahoo reject bulk mail"
            yield campaign_finding(PreflightCode.SENDER_NO_DKIM, what, "Create one: `postroad dkim keygen`.")
    if (urlsplit(settings.public_url).hostname or "").endswith(".invalid"):  # RFC 6761 §6.4: never resolves.
        yield campaign_finding(
            PreflightCode.URL_UNSET,
            "public_url is not set, so the unsubscribe links would lead nowhere",
            "Set public_url in postroad.toml to the URL at which recipients reach `postroad web`.",
        )
    elif not settings.public_url.startswith("https://"):
        what = f"public_url {settings.public_url} is not https, so receivers offer no one-click unsubscribe (RFC 8058)"
        yield campaign_finding(PreflightCode.URL_HTTP, what, "Set public_url to an https address.")
    yield from _check_frequency(connection, settings, campaign)
    yield from check_calendar(connection, settings, campaign, SystemClock().now())


def _check_frequency(connection: sa.Connection, settings: Settings, campaign: Campaign) -> Iterator[PreflightFinding]:
    """Yield the number of recipients who are over the campaign's frequency cap now."""
    try:
        require_class(campaign.frequency, settings.frequency, where="frequency")
    except ConfigError as error:
        yield campaign_finding(PreflightCode.FREQUENCY_UNKNOWN, error.message, error.remedy or "")
        return
    assert campaign.id is not None  # noqa: S101  (read from its table)
    rule = FrequencyRule(caps=settings.frequency, now=SystemClock().now())
    where = Segment.of(campaign, rule.now).sql(connection.dialect.name)
    over = over_cap_in_audience(connection, campaign.id, rule, where.sql, where.parameters)
    if over:
        name = campaign.frequency or NORMAL
        effect = "skipped" if campaign.frequency_skip else "sent later"
        yield campaign_finding(
            PreflightCode.FREQUENCY_OVER,
            f"{counted(over, 'recipient is', 'recipients are')} over the frequency cap {name} "
            f"({settings.frequency[name]}) now",
            f"Their messages are {effect}. `frequency: ignore` in the campaign's file sends them at once.",
            recipients=over,
        )


def check_dns(connection: sa.Connection, settings: Settings, campaign: Campaign) -> Iterator[PreflightFinding]:
    """Yield findings of the last DNS check of each sender. There are no lookups here: see `postroad dns senders`."""
    for (sender,) in senders_of(connection, campaign, "address"):
        yield from _check_sender_dns(connection, settings, sender)


def senders_of(connection: sa.Connection, campaign: Campaign, columns: str) -> list[sa.Row[Any]]:
    """Return columns of the campaign's sender and of its overflow senders."""
    ids = [campaign.sender_id, *(campaign.overflow["senders"] if campaign.overflow else [])]
    statement = sa.text(f"SELECT {columns} FROM sender WHERE id IN :ids ORDER BY id")
    return list(connection.execute(statement.bindparams(sa.bindparam("ids", ids, expanding=True))))


def _check_sender_dns(connection: sa.Connection, settings: Settings, sender: str) -> Iterator[PreflightFinding]:
    report = last_report(connection, sender)
    if report is None:
        if not is_reserved(sender.rpartition("@")[2].lower()):
            remedy = "Run `postroad dns senders --check`, or the deployment `dns-health`."
            yield campaign_finding(PreflightCode.DNS_UNCHECKED, f"the DNS of {sender} was not checked yet", remedy)
        return
    failing = failures(msgspec.convert(report.findings, list[DnsFinding]))
    if failing:
        level = Level.FAIL if settings.dns_health.preflight == "fail" else Level.WARN
        what = f"the DNS of {sender} fails, as of {report.checked_at:%Y-%m-%d %H:%M} UTC: {in_words(failing)}"
        remedy = f"`postroad dns check {report.domain}` shows what to publish."
        yield campaign_finding(PreflightCode.DNS_FAILING, what, remedy, level=level)
    hold = open_holds(connection).get(sender)
    if hold is not None and hold.held_at is not None:
        what = f"mail of {sender} is held back since {hold.held_at:%Y-%m-%d %H:%M} UTC: its DNS fails"
        yield campaign_finding(PreflightCode.DNS_HELD, what, "It is sent automatically when the DNS is fixed.")
