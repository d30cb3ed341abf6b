"""postroad web: the public endpoints."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Annotated

import typer

from postroad.app.context import Role, open_context
from postroad.bounce.intake import BOUNCE_QUEUE, Intake
from postroad.cli.signals import start_logging, stop_on_signals
from postroad.delivery.job import SEND_QUEUE
from postroad.embedded import redis_running
from postroad.errors import UnavailableError
from postroad.fetch import BoundedClient
from postroad.queue import Queue, beating, this_process
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
) -> None:
    """Serve the public endpoints until SIGTERM: one-click unsubscribe and its page, and webhooks of mail services.

    Put a TLS proxy in front of it, and set public_url to the proxy. GET /healthz shows whether it can work.
    SIGTERM: answers open requests and exits 0.
    """
    settings = Settings.load()
    start_logging(settings)
    asyncio.run(_serve(settings, host or settings.web.host, settings.web.port if port is None else port))


async def _serve(settings: Settings, host: str, port: int) -> None:
    stop = stop_on_signals()
    async with open_context(settings) as context, BoundedClient() as http:

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

        async def running_queue() -> Queue:
            """Return the queue to beat at. A beat alone starts no server."""
            if settings.redis_url is None and not await asyncio.to_thread(redis_running, settings.state_dir):
                raise UnavailableError("The queue's server is not running.")
            return await context.queue(SEND_QUEUE)

        async with (
            serving(create_app(web_parts), host, port, limiter_of(settings.web)) as listening_at,
            beating(running_queue, this_process(Role.WEB)),
        ):
            log.info("web listens at http://%s:%d", f"[{host}]" if ":" in host else host, listening_at)
            await stop.wait()
    log.info("web stopped")
