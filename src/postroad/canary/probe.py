"""Send a canary by a sender's own route, wait for it in the mailbox, and see what its receiver wrote on it.

It is merged, signed and sent as any message is. It goes by no queue: who is held back or paused can be looked into.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from datetime import timedelta
from email.parser import BytesHeaderParser
from random import Random

import sqlalchemy as sa
from msgspec import Struct

from postroad.bounce.sources.poll import open_source
from postroad.canary.compare import compare, promises
from postroad.canary.results import results_of
from postroad.clock import Clock
from postroad.delivery.destinations import Destinations
from postroad.delivery.outcome import NoMailHostError
from postroad.delivery.routes import open_routes, origins_of
from postroad.dns.checks import dkim, dmarc, spf
from postroad.dns.finding import Code, Finding, RecordVerdict, Standard, make_finding, worst
from postroad.dns.resolver import Resolver
from postroad.errors import ConfigError
from postroad.mail.dkim_keys import load_signers
from postroad.mail.message import Message, MessageSource, SenderIdentity, compile_message
from postroad.mail.token import TokenSigner
from postroad.senders.dns_health import identity_of
from postroad.settings import CanarySettings, Settings, SourceSettings
from postroad.shaping.config import read_shaping
from postroad.smtp.endpoint import ANYWHERE
from postroad.smtp.errors import TransportError, UnsendableError

PAGE = 50
MAX_PAGES = 20
"""Of one look into the mailbox, which is to be the canary's own."""

TEXT = (
    "This message shows its sender how it arrives. Nothing need be done about it.\n\n"
    "{{ postal_address }}\n{{ unsubscribe_url }}\n"
)


class CanaryReport(Struct, frozen=True, kw_only=True):
    """What came of one sender's canary."""

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
    """Send a sender's canary and say what came of it.

    Raises ConfigError where the settings name no mailbox for it, or one that cannot be opened; UnavailableError while
    the mailbox's server is away.
    """
    canary = settings.canary
    if canary is None:
        raise ConfigError("there is no mailbox for canaries", where="canary", remedy="Add a section [canary].")
    sender = settings.sender(name)
    promised = await _promised(settings, name, resolver, environ)
    token = secrets.token_hex(16)
    refusal = await _send(settings, name, canary.address, token, engine, resolver, signer, clock, environ)
    if refusal is not None:
        return CanaryReport(sender=name, findings=(make_finding(Code.CANARY_REFUSED, sender.address, refusal),))
    raw = await _await(canary, token, clock)
    if raw is None:
        seen = f"it was accepted, and was not in the mailbox within {canary.wait_ms / 1000:g} s"
        remedy = "Look into the spam folder, and into the log of the route's host."
        return CanaryReport(
            sender=name, findings=(make_finding(Code.CANARY_LOST, sender.address, seen, remedy=remedy),)
        )
    results = results_of(raw, canary.authserv_id)
    findings = compare(results, promised, sender=sender.address, authserv_id=canary.authserv_id)
    return CanaryReport(sender=name, findings=tuple(findings))


async def _promised(
    settings: Settings, name: str, resolver: Resolver, environ: Mapping[str, str]
) -> dict[Standard, bool | None]:
    identity = identity_of(settings, name, environ)
    signing = await dkim.check(resolver, identity)
    signed = any(finding.verdict is RecordVerdict.PASS for finding in signing) or None
    rest = await asyncio.gather(spf.check(resolver, identity), dmarc.check(resolver, identity, signed=signed))
    return promises([*signing, *(finding for each in rest for finding in each)])


def canary_message(
    settings: Settings,
    name: str,
    address: str,
    token: str,
    signer: TokenSigner,
    clock: Clock,
    environ: Mapping[str, str],
) -> Message:
    """Return the message, signed as the sender's are. Its number is that of no touch: what comes back matches none."""
    sender = settings.sender(name)
    compiled = compile_message(
        MessageSource(subject=_subject(token), text=TEXT, name="canary"),
        sender=SenderIdentity(
            address=sender.address,
            display_name=sender.name,
            reply_to=sender.reply_to,
            postal_address=sender.postal_address,
            bounce_domain=sender.bounce_domain,
        ),
        signer=signer,
        public_url=settings.public_url,
        dkim=load_signers(settings, environ).get(name),
    )
    number = 2**62 + clock.now_ms()
    return compiled.merge(number, address, {}, clock.now()).signed()


async def _send(
    settings: Settings,
    name: str,
    address: str,
    token: str,
    engine: sa.Engine,
    resolver: Resolver,
    signer: TokenSigner,
    clock: Clock,
    environ: Mapping[str, str],
) -> str | None:
    """Send it. Returns why it could not be; None: it was accepted."""
    sender = settings.sender(name)
    message = await asyncio.to_thread(canary_message, settings, name, address, token, signer, clock, environ)
    async with open_routes(
        {sender.route: settings.routes[sender.route]},
        shaping=read_shaping(settings.delivery.shaping),
        resolver=resolver,
        engine=engine,
        clock=clock,
        rng=Random(),  # noqa: S311  (it chooses among equals)
        destinations=Destinations.of(settings.delivery, concurrency=1),
    ) as routes:
        origin = origins_of(settings.senders).get(sender.address, ANYWHERE)
        try:
            reply = await routes[sender.route].send(message, _before_body, origin)
        except (TransportError, UnsendableError, NoMailHostError) as error:
            return f"it could not be sent: {error.reason}"
    return None if reply.code == 250 else f"it was refused: {reply}"


async def _before_body() -> None:
    """No queue is to be told."""


async def _await(canary: CanarySettings, token: str, clock: Clock) -> bytes | None:
    until = clock.now() + timedelta(milliseconds=canary.wait_ms)
    while True:
        raw = await asyncio.to_thread(_look, canary.mailbox, token)
        if raw is not None or clock.now() >= until:
            return raw
        await clock.sleep(canary.look_ms / 1000)


def _look(mailbox: SourceSettings, token: str) -> bytes | None:
    """Find the canary in the mailbox, and put it aside. Other mail stays."""
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
