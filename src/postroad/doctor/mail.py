"""Checks routes, mailboxes that mail is fetched from, and the inbound server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from postroad.bounce.sources.listener import greeting
from postroad.bounce.sources.poll import open_source
from postroad.clock import SystemClock
from postroad.delivery.routes import relay_of
from postroad.dns.lookup import LookupStatus
from postroad.dns.resolver import Resolver
from postroad.doctor.check import Check
from postroad.printable import counted
from postroad.queue import Health
from postroad.settings import RelaySettings, Settings, SourceSettings
from postroad.smtp.errors import Timeouts, TransportError
from postroad.smtp.reply import Phase
from postroad.smtp.session import SmtpSession


async def check_source(name: str, settings: SourceSettings) -> Sequence[Check]:
    """Check that a mailbox can be opened, without fetching mail. Raises the errors of `open_source`."""

    def waiting() -> int:
        source = open_source(settings)
        try:
            return source.waiting
        finally:
            source.close()

    mails = await asyncio.to_thread(waiting)
    return [
        Check(
            part=f"source {name}",
            health=Health.OK,
            seen=f"{settings.where}: {counted(mails, 'mail waits', 'mails wait')}",
        )
    ]


async def check_inbound(settings: Settings) -> Sequence[Check]:
    """Check that the inbound server sends its greeting."""
    where = settings.inbound.smtp or settings.inbound.lmtp or ""
    reply = await asyncio.to_thread(greeting, settings.inbound)
    if reply is None or not reply.startswith("220"):
        seen = f"{where}: {reply or 'there is no answer'}"
        return [Check(part="inbound", health=Health.FAIL, seen=seen, remedy="Is `postroad inbound` running here?")]
    return [Check(part="inbound", health=Health.OK, seen=f"{where}: {reply}")]


async def check_relay(name: str, settings: RelaySettings, helo: str | None) -> Sequence[Check]:
    """Check that a relay accepts our login."""
    relay = relay_of(settings, helo, SystemClock())
    where = f"{relay.endpoint.name}, tls {settings.tls}"
    try:
        session = await SmtpSession.open(relay.endpoint, Timeouts(connect=5, greeting=5))
    except TransportError as error:
        remedy = "Is it running? host, port, tls and username are in postroad.toml, the password in the environment."
        if error.phase is Phase.AUTH:
            remedy = f"username is in postroad.toml, the password in POSTROAD_ROUTES__{name.upper()}__PASSWORD."
        return [Check(part=f"route {name}", health=Health.FAIL, seen=f"{where}: {error}", remedy=remedy)]
    pipelining = "pipelining" if session.pipelining else "no pipelining: slower"
    await session.close()
    return [Check(part=f"route {name}", health=Health.OK, seen=f"{where}, {pipelining}")]


async def check_direct(name: str, settings: Settings) -> Sequence[Check]:
    """Check that DNS answers. Whether outgoing connections to port 25 are possible is not checked."""
    async with Resolver(settings.dns, SystemClock()) as resolver:
        root = await resolver.lookup(".", "NS")
    if root.status is LookupStatus.NO_ANSWER:
        remedy = "Mail would wait. Is the resolver of this host, or that of dns.nameservers, running?"
        return [Check(part=f"route {name}", health=Health.FAIL, seen=f"DNS does not answer: {root.why}", remedy=remedy)]
    dane = "validates DNSSEC" if root.secure else "is not trusted with DNSSEC: no DANE"
    return [Check(part=f"route {name}", health=Health.OK, seen=f"direct; the resolver answers and {dane}")]
