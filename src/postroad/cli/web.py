"""postroad web: the public endpoints."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Annotated

import typer

from postroad.app.context import Role
from postroad.app.readiness import WITHOUT_REDIS
from postroad.bounce.intake import BOUNCE_QUEUE, Intake
from postroad.cli.options import MetricsAt, MetricsHost, MetricsPort
from postroad.cli.role_process import open_role
from postroad.cli.signals import STOP_WITHIN_S, start_logging, stop_on_signals
from postroad.delivery.job import SEND_QUEUE
from postroad.fetch import BoundedClient
from postroad.settings import Settings
from postroad.web.app import create_app
from postroad.web.connections import limiter_of
from postroad.web.serve import serving
from postroad.web.unsubscribe import WebParts

log = logging.getLogger(__name__)


def web(
    host: Annotated[str | None, typer.Option(help="Address to listen at; unset: the setting web.host.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen at, 0: a free one; unset: web.port.", min=0, max=65535)
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Serve the public endpoints until SIGTERM: one-click unsubscribe and its page, and webhooks of mail services.

    Put a TLS proxy in front of it, and set public_url to the proxy. GET /healthz shows whether it can work.
    SIGTERM: answers open requests and exits 0.
    """
    settings = Settings.load()
    start_logging(settings)
    port = settings.web.port if port is None else port
    asyncio.run(_serve(settings, host or settings.web.host, port, MetricsAt(metrics_host, metrics_port)))


async def _serve(settings: Settings, host: str, port: int, at: MetricsAt) -> None:
    stop = stop_on_signals(STOP_WITHIN_S)
    async with (
        open_role(settings, Role.WEB, SEND_QUEUE, at, stop, required=WITHOUT_REDIS) as process,
        BoundedClient() as http,
    ):
        context = process.context

        async def intake() -> Intake:
            return Intake(engine=context.engine, queue=await context.queue(BOUNCE_QUEUE), clock=context.clock)

        web_parts = WebParts(
            engine=context.engine,
            signer=context.signer,
            clock=context.clock,
            queue=partial(context.queue, SEND_QUEUE),
            intake=intake,
            http=http,
            settings=settings.web,
        )
        async with serving(create_app(web_parts), host, port, limiter_of(settings.web)) as listening_at:
            process.ready()
            log.info("web listens at http://%s:%d", f"[{host}]" if ":" in host else host, listening_at)
            await stop.wait()
    log.info("web stopped")
