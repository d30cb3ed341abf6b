"""postroad inbound: receives bounces and other returned mail."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Annotated

import typer

from postroad.app.context import AppContext, Role
from postroad.bounce.intake import BOUNCE_QUEUE, Intake
from postroad.bounce.sources.listener import listen
from postroad.bounce.sources.metrics import InboundMetrics
from postroad.bounce.sources.recipient_policy import RecipientPolicy
from postroad.cli.options import MetricsAt, MetricsHost, MetricsPort
from postroad.cli.role_process import open_role
from postroad.cli.signals import STOP_WITHIN_S, start_logging, stop_on_signals
from postroad.errors import ConfigError
from postroad.settings import REPLY_TOKEN, InboundSettings, Settings

log = logging.getLogger(__name__)


def inbound(
    smtp: Annotated[str | None, typer.Option(help="Address and port to speak SMTP at: 0.0.0.0:25.")] = None,
    lmtp: Annotated[
        str | None, typer.Option(help="Address and port to speak LMTP at, or unix: and the path of a socket.")
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Receive bounces and other returned mail over SMTP and LMTP, until SIGTERM.

    Mail is accepted for bounce addresses and unsubscribe addresses that were signed with this key, and for addresses in
    the settings. No mail is relayed. The reply is 250 when a mail is stored and on the queue bounce:process, and 451
    while the queue is unreachable. SIGTERM: open transactions are answered first.
    """
    settings = Settings.load()
    given = {name: value for name, value in (("smtp", smtp), ("lmtp", lmtp)) if value is not None}
    if given:
        try:
            options = InboundSettings.model_validate({**settings.inbound.model_dump(), **given})
        except ValueError:
            raise ConfigError(
                "it is no address and port, such as 0.0.0.0:25", where=", ".join(f"--{name}" for name in given)
            ) from None
        settings = settings.model_copy(update={"inbound": options})
    start_logging(settings)
    # It would log the commands of every session, and with them addresses.
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    asyncio.run(_take_in(settings, MetricsAt(metrics_host, metrics_port)))


async def _take_in(settings: Settings, at: MetricsAt) -> None:
    stop = stop_on_signals(STOP_WITHIN_S)
    async with open_role(settings, Role.INBOUND, BOUNCE_QUEUE, at, stop) as process:
        context = process.context
        intake = Intake(engine=context.engine, queue=await process.open_queue(), clock=context.clock)
        recipient_policy = recipient_policy_of(context)
        async with listen(
            settings.inbound,
            host_name=settings.inbound.host_name or socket.getfqdn(),
            submit=intake.submit,
            recipient_policy=recipient_policy,
            clock=context.clock,
            metrics=InboundMetrics(context.metrics.registry) if context.metrics is not None else None,
        ) as listening:
            process.ready()
            domains = ", ".join(sorted(recipient_policy.domains)) or "no domain: no sender has a bounce_domain"
            log.info("inbound listens at %s for %s", ", ".join(listening.addresses), domains)
            await stop.wait()
    log.info("inbound stopped: %d mails taken", listening.taken)


def recipient_policy_of(context: AppContext) -> RecipientPolicy:
    """Return the recipient policy of the settings."""
    inbound, senders = context.settings.inbound, context.settings.senders.values()
    signed = [sender.reply_to for sender in senders if sender.reply_to and REPLY_TOKEN in sender.reply_to]
    return RecipientPolicy(
        context.signer,
        domains=[
            *inbound.domains,
            *(sender.bounce_domain or sender.domain for sender in senders),
            *(address.rpartition("@")[2] for address in signed),
        ],
        addresses=inbound.addresses,
        senders=inbound.senders,
    )
