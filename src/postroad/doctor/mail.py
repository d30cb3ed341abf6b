"""The ways of mail, out and back: routes, sources, the listener."""

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
from postroad.smtp.reply import Phase
from postroad.smtp.session import SmtpSession, Timeouts, TransportError


async def check_source(name: str, settings: SourceSettings) -> Sequence[Check]:
    """Check that mail can be fetched: open the source as a pass opens it, and fetch nothing. Raises as it does."""

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
    """Check that the listener for what comes back greets."""
    where = settings.inbound.smtp or settings.inbound.lmtp or ""
    said = await asyncio.to_thread(greeting, settings.inbound)
    if said is None or not said.startswith("220"):
        seen = f"{where}: {said or 'nobody answers'}"
        return [Check(part="inbound", health=Health.FAIL, seen=seen, remedy="Is `postroad inbound` running here?")]
    return [Check(part="inbound", health=Health.OK, seen=f"{where}: {said}")]


async def check_relay(name: str, settings: RelaySettings, helo: str | None) -> Sequence[Check]:
    """Check that a relay takes our login."""
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
    """Check that DNS answers, which everything depends on. Only sending shows whether port 25 is open to the world."""
    async with Resolver(settings.dns, SystemClock()) as resolver:
        root = await resolver.lookup(".", "NS")
    if root.status is LookupStatus.NO_ANSWER:
        remedy = "Mail would wait. Is the resolver of this machine, or that of dns.nameservers, running?"
        return [Check(part=f"route {name}", health=Health.FAIL, seen=f"DNS does not answer: {root.why}", remedy=remedy)]
    dane = "vouches for DNSSEC" if root.secure else "is not trusted with DNSSEC: no DANE"
    return [Check(part=f"route {name}", health=Health.OK, seen=f"direct; the resolver answers and {dane}")]
