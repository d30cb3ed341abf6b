"""All checks of an installation, in the order that they are shown in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial

from postroad.bounce.intake import BOUNCE_QUEUE
from postroad.delivery.job import SEND_QUEUE
from postroad.doctor import campaigns, configuration, http, mail, prefect, processes, queues, senders
from postroad.doctor.check import Check, Probe, failed, run_probes
from postroad.doctor.context import DoctorContext
from postroad.errors import PostroadError
from postroad.local.prefect_access import find_prefect
from postroad.local.prefect_pool import POOL
from postroad.settings import RouteKind, Settings

ROUTE_S = 10.0
"""A relay may greet late, to keep spammers away."""

AUDIT_S = 60.0
"""An audit reads the whole queue."""


async def examine() -> list[Check]:
    """Check every part that the settings name. A part that fails or hangs keeps no other from being checked."""
    try:
        settings = Settings.load()
    except PostroadError as error:
        return [failed("settings", error)]
    async with DoctorContext.open(settings) as context:
        return await run_probes([*probes_of(context)])


def probes_of(context: DoctorContext) -> Iterator[Probe]:
    """Return what to look at. To add a check, add its line here."""
    settings = context.settings
    yield _pure("settings", lambda: [configuration.check_settings(settings)])
    yield _pure("names", lambda: configuration.check_names(settings))
    yield _pure("dkim", lambda: configuration.check_dkim(settings))
    yield _pure("shaping", lambda: [configuration.check_shaping(settings)])
    yield _shared("database", queues.check_database, context)
    yield _pure("state folder", lambda: [configuration.check_state_folder(settings)])
    yield _pure("secret key", lambda: [configuration.check_secret_key(settings)])
    yield _shared("redis", queues.check_servers, context)
    yield _shared(f"queue {SEND_QUEUE}", queues.check_send_queue, context)
    for needed in processes.needed_workers(settings):
        yield Probe(part=needed.part, look=partial(processes.check_worker, needed, context))
    yield _shared("recorder", processes.check_recorder, context)
    yield _shared("senders", senders.check_senders, context)
    yield _shared("advance", campaigns.check_advance, context)
    yield _shared("ledger", queues.check_ledger, context)
    yield Probe(part="audit", look=partial(queues.check_invariants, context), deadline_s=AUDIT_S)
    if settings.inbound.enabled or settings.bounce.sources:
        yield _shared(f"queue {BOUNCE_QUEUE}", queues.check_bounce_queue, context)
    if settings.inbound.enabled:
        yield Probe(part="inbound", look=lambda: mail.check_inbound(settings))
    for name, source in settings.bounce.sources.items():
        yield Probe(part=f"source {name}", look=partial(mail.check_source, name, source))
    yield from _routes(settings)
    if not settings.public_url.endswith(".invalid"):
        yield Probe(part="public_url", look=lambda: http.check_web(settings))
    yield from _prefect(settings)


def _prefect(settings: Settings) -> Iterator[Probe]:
    access = find_prefect(settings.state_dir)
    yield Probe(part="prefect", look=partial(prefect.check_prefect, access))
    yield Probe(part="prefect access", look=partial(prefect.check_protection, access))
    yield Probe(part=f"work pool {POOL}", look=partial(prefect.check_pool, access))
    database = settings.state_dir / "prefect" / "prefect.db"
    yield Probe(part="prefect database", look=partial(prefect.check_growth, access, database))
    if settings.alert_block is not None:
        yield Probe(part="alerts", look=partial(prefect.check_alerts, access, settings.alert_block))


def _routes(settings: Settings) -> Iterator[Probe]:
    for name, route in settings.routes.items():
        part = f"route {name}"
        if route.kind is RouteKind.DIRECT:
            yield Probe(part=part, look=partial(mail.check_direct, name, settings), deadline_s=ROUTE_S)
        for relay in route.relay_pool:
            yield Probe(part=part, look=partial(mail.check_relay, name, relay, route.helo), deadline_s=ROUTE_S)


def _shared(part: str, look: Callable[[DoctorContext], Awaitable[Sequence[Check]]], context: DoctorContext) -> Probe:
    return Probe(part=part, look=partial(look, context))


def _pure(part: str, look: Callable[[], Iterable[Check]]) -> Probe:
    """Return the probe of what only reads files: in a thread, since a file may be on a server that hangs."""
    return Probe(part=part, look=lambda: asyncio.to_thread(lambda: [*look()]))
