"""Sends a canary by a sender's own route, waits for it in the mailbox, and reads the receiver's results.

It is merged, signed and sent as any message is, but not queued, so that held and paused senders can be checked too.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from email.parser import BytesHeaderParser
from typing import NamedTuple

import sqlalchemy as sa
from msgspec import Struct, to_builtins

from postroad.bounce.sources.poll import open_source
from postroad.canary.compare import compare, expected_results
from postroad.canary.results import parse_results
from postroad.clock import Clock
from postroad.delivery.unqueued import open_unqueued
from postroad.dns.checks import dkim, dmarc, spf
from postroad.dns.finding import Code, Finding, RecordVerdict, Standard, make_finding, worst
from postroad.dns.resolver import Resolver
from postroad.errors import ConfigError
from postroad.mail.dkim_keys import load_signers
from postroad.mail.message import Message, MessageSource, SenderIdentity, compile_message
from postroad.mail.token import TokenSigner
from postroad.senders.dns_health import identity_of
from postroad.settings import CanarySettings, Settings, SourceSettings
from postroad.store.canary_report import StoredCanary, save_canary
from postroad.store.engine import write

PAGE = 50
MAX_PAGES = 20
"""Maximum number of pages in one search of the mailbox, which should be used for canaries only."""

TEXT = (
    "This message shows its sender how it arrives. No action is required.\n\n"
    "{{ postal_address }}\n{{ unsubscribe_url }}\n"
)


class CanaryReport(Struct, frozen=True, kw_only=True):
    """The findings about one sender's canary."""

    sender: str
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> RecordVerdict:
        return worst(finding.verdict for finding in self.findings)


async def send_canary(
    settings: Settings,
    name: str,
    *,
    engine: sa.Engine,
    resolver: Resolver,
    signer: TokenSigner,
    clock: Clock,
    environ: Mapping[str, str],
) -> CanaryReport:
    """Send a sender's canary, wait for it, compare the receiver's results with DNS, and store what was found.

    Args:
        settings: The settings.
        name: The sender's name in the settings.
        engine: The database.
        resolver: Sends the DNS queries.
        signer: Makes the tokens of the message.
        clock: The clock.
        environ: Environment variables, which may hold DKIM keys.

    Returns:
        The report.

    Raises:
        ConfigError: The settings name no mailbox for canaries, or it cannot be opened.
        UnavailableError: The server of the mailbox or the database is unavailable.
    """
    canary = settings.canary
    if canary is None:
        raise ConfigError("there is no mailbox for canaries", where="canary", remedy="Add a section [canary].")
    probe = _Probe(settings, name, engine, resolver, signer, clock, environ)
    address = settings.sender(name).address
    report = CanaryReport(sender=name, findings=tuple(await _find(probe, canary, address)))
    await asyncio.to_thread(_save, engine, address, report, clock.now())
    return report


async def _find(probe: _Probe, canary: CanarySettings, address: str) -> Sequence[Finding]:
    expected = await probe.expected_results()
    token = secrets.token_hex(16)
    error = await probe.send(canary.address, token)
    if error is not None:
        return [make_finding(Code.CANARY_REFUSED, address, error)]
    raw = await _wait_for_canary(canary, token, probe.clock)
    if raw is None:
        seen = f"it was accepted, but was not in the mailbox within {canary.wait_ms / 1000:g} s"
        remedy = "Check the spam folder, and the log of the route's host."
        return [make_finding(Code.CANARY_LOST, address, seen, remedy=remedy)]
    results = parse_results(raw, canary.authserv_id)
    return compare(results, expected, sender=address, authserv_id=canary.authserv_id)


def _save(engine: sa.Engine, address: str, report: CanaryReport, now: datetime) -> None:
    findings = [to_builtins(finding) for finding in report.findings]
    row = StoredCanary(sender=address, verdict=report.verdict, findings=findings, ended_at=now)
    with write(engine) as connection:
        save_canary(connection, row)


class _Probe(NamedTuple):
    """What a canary of one sender needs."""

    settings: Settings
    name: str
    engine: sa.Engine
    resolver: Resolver
    signer: TokenSigner
    clock: Clock
    environ: Mapping[str, str]

    async def expected_results(self) -> dict[Standard, bool | None]:
        """Return whether mail of the sender should pass according to DNS, by standard."""
        identity = identity_of(self.settings, self.name, self.environ)
        signing = await dkim.check(self.resolver, identity)
        signed = any(finding.verdict is RecordVerdict.PASS for finding in signing) or None
        others = await asyncio.gather(
            spf.check(self.resolver, identity), dmarc.check(self.resolver, identity, signed=signed)
        )
        return expected_results([*signing, *(finding for findings in others for finding in findings)])

    async def send(self, address: str, token: str) -> str | None:
        """Send the canary by the sender's route. Return why it was not accepted, or None if it was."""
        settings = self.settings
        sender = settings.sender(self.name)
        message = await asyncio.to_thread(self._message, address, token)
        async with open_unqueued(
            settings, sender.route, sender.address, engine=self.engine, resolver=self.resolver, clock=self.clock
        ) as route:
            attempt = await route.send(message)
        if attempt.accepted:
            return None
        return f"it was rejected: {attempt}" if attempt.reply is not None else f"it could not be sent: {attempt}"

    def _message(self, address: str, token: str) -> Message:
        """Return the message, signed as other mail of the sender. Its number is not that of a touch."""
        sender = self.settings.sender(self.name)
        compiled = compile_message(
            MessageSource(subject=_subject(token), text=TEXT, name="canary"),
            sender=SenderIdentity(
                address=sender.address,
                display_name=sender.name,
                reply_to=sender.reply_to,
                postal_address=sender.postal_address,
                bounce_domain=sender.bounce_domain,
            ),
            signer=self.signer,
            public_url=self.settings.public_url,
            dkim=load_signers(self.settings, self.environ).get(self.name),
        )
        number = 2**62 + self.clock.now_ms()
        return compiled.merge(number, address, {}, self.clock.now()).signed()


async def _wait_for_canary(canary: CanarySettings, token: str, clock: Clock) -> bytes | None:
    deadline = clock.now() + timedelta(milliseconds=canary.wait_ms)
    while True:
        raw = await asyncio.to_thread(_find_canary, canary.mailbox, token)
        if raw is not None or clock.now() >= deadline:
            return raw
        await clock.sleep(canary.look_ms / 1000)


def _find_canary(mailbox: SourceSettings, token: str) -> bytes | None:
    """Find the canary in the mailbox, and acknowledge it. Other mail stays unread."""
    source = open_source(mailbox)
    try:
        for _ in range(MAX_PAGES):
            mails = source.fetch(PAGE)
            for mail in mails:
                if mail.raw is not None and _is_canary(mail.raw, token):
                    source.acknowledge([mail.key])
                    return mail.raw
            if not mails:
                break
    finally:
        source.close()
    return None


def _is_canary(raw: bytes, token: str) -> bool:
    return str(BytesHeaderParser().parsebytes(raw).get("Subject", "")).strip() == _subject(token)


def _subject(token: str) -> str:
    return f"Canary {token}"
