"""Holds senders whose domains fail DNS checks, and releases them when the domain passes again.

Each report is stored. The store decides which senders are held, and the gates of the queue follow it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address

import msgspec
import sqlalchemy as sa

from postroad.dns.finding import Finding, RecordVerdict, failures, in_words
from postroad.dns.health import Change, HealthReport, difference
from postroad.dns.identity import Identity, is_reserved
from postroad.errors import ConfigError, DataError
from postroad.gates.name import GateName
from postroad.gates.plan import Contribution, SourceTraits
from postroad.mail.address import ascii_domain
from postroad.mail.dkim_keys import load_keys
from postroad.queue import FOREVER_MS, GateState
from postroad.settings import DnsHealthSettings, RouteKind, Settings
from postroad.store.dns_report import (
    DnsReport,
    SenderHold,
    last_report,
    lock_sender,
    open_holds,
    save_dns_report,
    save_hold,
)
from postroad.store.engine import read, write

DNS = "dns"
"""Mark of the gates that DNS holds pause."""


class HealthStep(StrEnum):
    """What a report changes for its sender."""

    NOTHING = "nothing"
    GRACE = "grace"  # it fails; its grace period begins
    HELD = "held"
    RELEASED = "released"
    RECOVERED = "recovered"  # within its grace period, so it was never held


@dataclass(frozen=True, kw_only=True)
class SenderHealth:
    """The result of one report.

    ``before``: verdict of the last report; None: this is the first. ``change``: difference from the last report.
    ``held``: whether the sender is held now. ``why``: reason of the step.
    """

    sender: str
    domain: str
    verdict: RecordVerdict
    findings: tuple[Finding, ...]
    before: RecordVerdict | None
    change: Change
    step: HealthStep
    held: bool
    why: str


def senders_to_check(settings: Settings) -> list[str]:
    """Return the names of the senders whose domains can be in public DNS."""
    return [name for name, sender in settings.senders.items() if not is_reserved(sender.domain)]


def identity_of(settings: Settings, name: str, environ: Mapping[str, str]) -> Identity:
    """Return a sender as receivers identify it, by the settings.

    For a sender with a relay, receivers see the relay's address and HELO name, not those of this machine.

    Args:
        settings: All settings.
        name: Name of the sender.
        environ: The environment, which may contain DKIM keys.

    Returns:
        The identity.

    Raises:
        ConfigError: A key cannot be read, or a domain is not valid.
    """
    sender, health = settings.sender(name), settings.dns_health
    route = settings.routes[sender.route]
    ips, helo = sender.public_addresses, None
    if route.kind is RouteKind.DIRECT:
        helo = sender.helo or route.helo
        if not ips and sender.source_address is not None and ip_address(sender.source_address).is_global:
            ips = (sender.source_address,)
    keys = {key.selector: key.record.partition("p=")[2] for key in load_keys(name, sender, environ)}
    try:
        domain = ascii_domain(sender.domain)
        bounce_domain = ascii_domain(sender.bounce_domain) if sender.bounce_domain else ""
    except DataError as error:
        where = f"{settings.config_path or 'postroad.toml'}, senders.{name}"
        raise ConfigError(error.message, where=where) from None
    return Identity(
        domain=domain,
        bounce_domain=bounce_domain,
        sender_ips=ips,
        selectors=tuple(dict.fromkeys((*keys, *sender.dkim_selectors))),
        helo=helo,
        keys=keys,
        address_blocklists=health.address_blocklists,
        domain_blocklists=health.domain_blocklists,
    )


def decide(
    hold: SenderHold | None, findings: Sequence[Finding], settings: DnsHealthSettings, now: datetime
) -> tuple[HealthStep, str]:
    """Decide what a report changes for a sender.

    Only answers of DNS count. A query without an answer neither fails a domain nor ends its failure.

    Args:
        hold: The open hold or grace period of the sender. None: it has none.
        findings: Findings of the report.
        settings: Settings of the checks.
        now: Time of the report.

    Returns:
        The step, and its reason.
    """
    relevant = [finding for finding in findings if finding.standard.is_about_sending]
    failing = failures(findings)
    why = in_words(failing)
    held = hold is not None and hold.held_at is not None
    if held and not settings.hold:
        return HealthStep.RELEASED, "dns_health.hold is off"
    if failing:
        since = now if hold is None else hold.failing_since
        if settings.hold and not held and now - since >= timedelta(milliseconds=settings.grace_ms):
            return HealthStep.HELD, why
        return (HealthStep.GRACE if hold is None else HealthStep.NOTHING), why
    if hold is None:
        return HealthStep.NOTHING, ""
    if any(finding.verdict is RecordVerdict.UNKNOWN and finding.code != "dnsbl.refused" for finding in relevant):
        return HealthStep.NOTHING, hold.reason
    return (HealthStep.RELEASED if held else HealthStep.RECOVERED), "its DNS passes again"


def record(engine: sa.Engine, sender: str, report: HealthReport, settings: DnsHealthSettings) -> SenderHealth:
    """Store a report, and hold or release its sender.

    Args:
        engine: Database of the reports.
        sender: From address of the sender.
        report: The report.
        settings: Settings of the checks.

    Returns:
        The step, and the difference from the last report.

    Raises:
        UnavailableError: The database is unavailable.
    """
    now = report.checked_at
    with write(engine) as connection:
        lock_sender(connection, sender)
        last = last_report(connection, sender)
        hold = open_holds(connection).get(sender)
        step, why = decide(hold, report.findings, settings, now)
        save_dns_report(
            connection,
            DnsReport(
                sender=sender,
                domain=report.domain,
                verdict=report.verdict,
                findings=[msgspec.to_builtins(finding) for finding in report.findings],
                checked_at=now,
            ),
        )
        after = _update_hold(connection, sender, hold, step, why, now)
    return SenderHealth(
        sender=sender,
        domain=report.domain,
        verdict=report.verdict,
        findings=report.findings,
        before=RecordVerdict(last.verdict) if last is not None else None,
        change=difference(findings_of(last) if last is not None else (), report.findings),
        step=step,
        held=after is not None and after.held_at is not None and after.ended_at is None,
        why=why,
    )


def _update_hold(
    connection: sa.Connection, sender: str, hold: SenderHold | None, step: HealthStep, why: str, now: datetime
) -> SenderHold | None:
    match step:
        case HealthStep.NOTHING if hold is None:
            return None
        case HealthStep.NOTHING | HealthStep.GRACE:
            hold = hold or SenderHold(sender=sender, reason=why, failing_since=now)
            hold.reason = why
        case HealthStep.HELD:
            hold = hold or SenderHold(sender=sender, reason=why, failing_since=now)
            hold.reason, hold.held_at = why, now
        case HealthStep.RELEASED | HealthStep.RECOVERED:
            assert hold is not None  # noqa: S101  (only an open hold ends)
            hold.ended_at, hold.ended_why = now, why
    save_hold(connection, hold)
    return hold


def findings_of(report: DnsReport) -> tuple[Finding, ...]:
    """Return the findings of a stored report."""
    return msgspec.convert(report.findings, tuple[Finding, ...])


def close_stale_holds(engine: sa.Engine, settings: Settings, now: datetime) -> list[str]:
    """End holds and grace periods of senders that were removed from the settings.

    Args:
        engine: Database of the holds.
        settings: All settings.
        now: The time.

    Returns:
        From addresses of these senders.

    Raises:
        UnavailableError: The database is unavailable.
    """
    known = {sender.address for sender in settings.senders.values()}
    with write(engine) as connection:
        ended = [hold for sender, hold in open_holds(connection).items() if sender not in known]
        for hold in ended:
            hold.ended_at, hold.ended_why = now, "it is no longer a sender"
            save_hold(connection, hold)
    return [hold.sender for hold in ended]


def held_senders(engine: sa.Engine) -> set[str]:
    """Return the addresses of the senders that are held now."""
    with read(engine) as connection:
        return {sender for sender, hold in open_holds(connection).items() if hold.held_at is not None}


class DnsHolds:
    """Contributes the pauses of senders that are held.

    Only the controller of a check ends these pauses. All others only set them.
    """

    def __init__(self, engine: sa.Engine, *, releasing: bool = False) -> None:
        """Make the source.

        Args:
            engine: Database of the holds.
            releasing: Whether a check was made, so that senders that are no longer held are released.
        """
        self._engine = engine
        self.traits = SourceTraits(name=DNS, pauses=True, withdraws=releasing, locks=True)

    async def contribute(self, states: Mapping[str, GateState]) -> list[Contribution]:
        """Return a pause without end for each sender that is held.

        Args:
            states: Not used.

        Raises:
            UnavailableError: The database is unavailable.
        """
        held = await asyncio.to_thread(held_senders, self._engine)
        return [
            Contribution(source=DNS, gate=str(GateName.hold(sender)), paused_until_ms=FOREVER_MS)
            for sender in sorted(held)
        ]
