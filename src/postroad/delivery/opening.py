"""All that delivers, opened together: routes, shaping, signing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random

import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from postroad.clock import Clock
from postroad.delivery.destinations import Destinations
from postroad.delivery.gate_controller import GateController
from postroad.delivery.handler import SendHandler
from postroad.delivery.job import SEND_QUEUE
from postroad.delivery.routes import RouteMetrics, open_routes, origins_of
from postroad.delivery.shaping.file import read_shaping
from postroad.delivery.shaping.shaper import Shaper
from postroad.dns.resolver import Resolver
from postroad.mail.dkim_keys import signers_of
from postroad.mail.token import TokenSigner
from postroad.queue import Queue
from postroad.settings import Settings


@asynccontextmanager
async def open_delivery(
    settings: Settings,
    *,
    engine: sa.Engine,
    queue: Queue,
    gates: GateController,
    signer: TokenSigner,
    resolver: Resolver,
    clock: Clock,
    environ: Mapping[str, str],
    registry: CollectorRegistry | None = None,
    concurrency: int | None = None,
) -> AsyncIterator[SendHandler]:
    """Open what handles the jobs of ``email:send``; its changes of limits are acted upon as long as this is open.

    ``gates``: controller of the queue's gates. ``environ`` holds the keys that settings name by variable; ``registry``
    takes metrics. Raises ConfigError for a key or a file that cannot be read. ``concurrency``: of the worker; None: as
    its queue's settings say.
    """
    destinations = Destinations.of(settings.delivery, concurrency or settings.queue(SEND_QUEUE).concurrency)
    shaping = read_shaping(settings.delivery.shaping)
    shaper = Shaper(engine=engine, gates=gates, shaping=shaping, clock=clock, registry=registry)
    dkim = signers_of(settings, environ)
    rng = Random()  # noqa: S311  (it chooses among equals)
    async with open_routes(
        settings.routes,
        shaping=shaping,
        resolver=resolver,
        engine=engine,
        clock=clock,
        rng=rng,
        destinations=destinations,
    ) as routes:
        if registry is not None:
            registry.register(RouteMetrics(routes))
        delivery = SendHandler(
            engine=engine,
            queue=queue,
            routes=routes,
            origins=origins_of(settings.senders),
            signer=signer,
            public_url=settings.public_url,
            clock=clock,
            shaper=shaper,
            dkim=dkim,
            services=settings.services,
        )
        async with shaper.acting(), delivery:
            yield delivery
