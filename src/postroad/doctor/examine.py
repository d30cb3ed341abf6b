"""Lists all checks of an installation, in display order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial

from postroad.bounce.intake import BOUNCE_QUEUE
from postroad.delivery.job import SEND_QUEUE
from postroad.doctor import campaigns, configuration, http, mail, prefect, processes, queues, senders, webhooks
from postroad.doctor.check import Check, Probe, failed, run_probes
from postroad.doctor.context import DoctorContext
from postroad.errors import PostroadError
from postroad.local.prefect_access import find_prefect
from postroad.local.prefect_pool import POOL
from postroad.settings import RouteKind, Settings

ROUTE_S = 10.0
"""Deadline of a route, in seconds. A relay may delay its greeting to deter spammers."""

AUDIT_S = 60.0
"""Deadline of the audit, in seconds, which reads the whole queue."""


async def examine() -> list[Check]:
    """Check every part that the settings name. A part that fails or hangs does not affect other checks."""
    try:
        settings = Settings.load()
    except PostroadError as error:
        return [failed("settings", error)]
    async with DoctorContext.open(settings) as context:
        return await run_probes([*probes_of(context)])


def probes_of(context: DoctorContext) -> Iterator[Probe]:
    """Yield all probes. Add a check by adding its line here."""
    settings = context.settings
    yield _local("settings", lambda: [configuration.check_settings(settings)])
    yield _local("names", lambda: configuration.check_names(settings))
    yield _local("dkim", lambda: configuration.check_dkim(settings))
    yield _local("shaping", lambda: [configuration.check_shaping(settings)])
    yield _shared("database", queues.check_database, context)
    yield _local("state folder", lambda: [configuration.check_state_folder(settings)])
    yield _local("secret key", lambda: [configuration.check_secret_key(settings)])
    yield _shared("redis", queues.check_servers, context)
    yield _shared(f"queue {SEND_QUEUE}", queues.check_send_queue, context)
    for required in processes.required_workers(settings):
        yield Probe(part=required.part, run=partial(processes.check_worker, required, context))
    yield _shared("recorder", processes.check_recorder, context)
    yield _shared("senders", senders.check_senders, context)
    yield _shared("advance", campaigns.check_advance, context)
    yield _shared("frequency", campaigns.check_frequency, context)
    yield _shared("ledger", queues.check_ledger, context)
    yield Probe(part="audit", run=partial(queues.check_invariants, context), deadline_s=AUDIT_S)
    if settings.inbound.enabled or settings.bounce.sources:
        yield _shared(f"queue {BOUNCE_QUEUE}", queues.check_bounce_queue, context)
    if settings.inbound.enabled:
        yield Probe(part="inbound", run=lambda: mail.check_inbound(settings))
    for name, source in settings.bounce.sources.items():
        yield Probe(part=f"source {name}", run=partial(mail.check_source, name, source))
    if settings.webhooks_out:
        yield _shared("webhooks", webhooks.check_webhooks, context)
    yield from _routes(settings)
    if not settings.public_url.endswith(".invalid"):
        yield Probe(part="public_url", run=lambda: http.check_web(settings))
    yield from _prefect(settings)


def _prefect(settings: Settings) -> Iterator[Probe]:
    access = find_prefect(settings.state_dir)
    yield Probe(part="prefect", run=partial(prefect.check_prefect, access))
    yield Probe(part="prefect access", run=partial(prefect.check_protection, access))
    yield Probe(part=f"work pool {POOL}", run=partial(prefect.check_pool, access))
    database = settings.state_dir / "prefect" / "prefect.db"
    yield Probe(part="prefect database", run=partial(prefect.check_growth, access, database))
    if settings.alert_block is not None:
        yield Probe(part="alerts", run=partial(prefect.check_alerts, access, settings.alert_block))


def _routes(settings: Settings) -> Iterator[Probe]:
    for name, route in settings.routes.items():
        part = f"route {name}"
        if route.kind is RouteKind.DIRECT:
            yield Probe(part=part, run=partial(mail.check_direct, name, settings), deadline_s=ROUTE_S)
        for relay in route.relay_pool:
            yield Probe(part=part, run=partial(mail.check_relay, name, relay, route.helo), deadline_s=ROUTE_S)


def _shared(part: str, check: Callable[[DoctorContext], Awaitable[Sequence[Check]]], context: DoctorContext) -> Probe:
    return Probe(part=part, run=partial(check, context))


def _local(part: str, check: Callable[[], Iterable[Check]]) -> Probe:
    """Return the probe of a check that only reads files. It runs in a thread, because a file server may hang."""
    return Probe(part=part, run=lambda: asyncio.to_thread(lambda: [*check()]))
