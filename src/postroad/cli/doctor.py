"""postroad doctor: looks at every part, and says how to mend what is wrong."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import assert_never

import httpx
import typer

from postroad.bounce.intake import BOUNCE_QUEUE
from postroad.bounce.sources.listener import greeting
from postroad.bounce.sources.poll import open_source
from postroad.cli.output import JsonOption, console, print_json
from postroad.clock import SystemClock
from postroad.delivery.control import missing_jobs
from postroad.delivery.job import SEND_QUEUE
from postroad.delivery.limits import require_divisible
from postroad.delivery.record import GROUP
from postroad.delivery.routes import relay_of
from postroad.delivery.shaping.file import read_shaping, shaped_senders
from postroad.dns.lookup import Found
from postroad.dns.resolver import Resolver
from postroad.errors import PostroadError
from postroad.local.prefect import ALERTS
from postroad.mail.dkim_keys import keys_of
from postroad.parts import Parts, open_parts, redis_url
from postroad.queue.topology import Health, inspect
from postroad.settings import RelaySettings, RouteKind, Settings, SourceSettings
from postroad.smtp.reply import Phase
from postroad.smtp.session import Session, Timeouts, TransportError

LAG_EVENTS = 10_000
UNWORKED_MS = 60_000
MISSING_JOBS = 100
"""Fewer may seem to be missing while mail is moving."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One part, and how it is."""

    part: str
    health: Health
    seen: str
    remedy: str = ""


def doctor(as_json: JsonOption = False) -> None:
    """Check every part: settings, keys, Redis, database, recorder, sources, routes, web, Prefect.

    Exits 1 when one fails.
    """
    checks = asyncio.run(_all())
    if as_json:
        print_json(checks)
    else:
        for check in checks:
            match check.health:
                case Health.OK:
                    colour = "green"
                case Health.WARN:
                    colour = "yellow"
                case Health.FAIL:
                    colour = "red"
                case other:
                    assert_never(other)
            console.print(f"[{colour}]{check.health:<4}[/] {check.part:<18} {check.seen}", soft_wrap=True)
            if check.remedy:
                console.print(f"     {'':<18} {check.remedy}", soft_wrap=True)
    if any(check.health is Health.FAIL for check in checks):
        raise typer.Exit(1)


async def _all() -> list[Check]:
    try:
        settings = Settings.load()
    except PostroadError as error:
        return [_failed("settings", error)]
    checks = [_settings(settings), *_dkim(settings), _shaping(settings)]
    try:
        async with open_parts(settings) as parts:
            checks.append(Check(part="database", health=Health.OK, seen=parts.engine.url.render_as_string()))
            checks.append(_key(settings))
            checks += [check async for check in _queue(parts)]
            if settings.inbound.enabled or settings.bounce.sources:
                checks.append(await _bounces(parts))
    except PostroadError as error:
        checks.append(_failed("database", error))
    if settings.inbound.enabled:
        checks.append(await _inbound(settings))
    checks += await asyncio.gather(*(_source(*named) for named in settings.bounce.sources.items()))
    checks += [check async for check in _routes(settings)]
    if not settings.public_url.endswith(".invalid"):
        checks.append(await _web(settings))
    checks.append(await _prefect())
    if settings.alert_block is not None:
        checks.append(await _alerts(settings.alert_block))
    return checks


def _failed(part: str, error: PostroadError) -> Check:
    where = f"{error.where}: " if error.where else ""
    return Check(part=part, health=Health.FAIL, seen=f"{where}{error.message}", remedy=error.remedy or "")


def _settings(settings: Settings) -> Check:
    where = str(settings.config_path or "no postroad.toml")
    if not settings.senders:
        remedy = "Add [senders.NAME] and [routes.NAME] to postroad.toml: docs/reference/settings.md."
        return Check(part="settings", health=Health.WARN, seen=f"{where}: no sender yet", remedy=remedy)
    if settings.public_url.endswith(".invalid"):
        remedy = "Set public_url to where recipients reach you; no campaign launches without it."
        return Check(part="settings", health=Health.WARN, seen=f"{where}: public_url is not set", remedy=remedy)
    seen = f"{where}: {len(settings.senders)} senders, {len(settings.routes)} routes"
    return Check(part="settings", health=Health.OK, seen=seen)


def _dkim(settings: Settings) -> Iterator[Check]:
    for name, sender in settings.senders.items():
        part = f"dkim {name}"
        try:
            keys = keys_of(name, sender, os.environ)
        except PostroadError as error:
            yield _failed(part, error)
            continue
        shared = [key.key_file for key in sender.dkim if key.key_file and key.key_file.stat().st_mode & 0o077]
        if shared:
            remedy = f"chmod 600 {shared[0]}"
            yield Check(part=part, health=Health.WARN, seen=f"{shared[0]} can be read by others", remedy=remedy)
        elif keys:
            seen = ", ".join(f"{key.selector} ({key.algorithm})" for key in keys)
            yield Check(part=part, health=Health.OK, seen=seen)
        else:
            remedy = "`postroad dkim keygen` makes a key; where the relay signs, nothing is amiss."
            yield Check(part=part, health=Health.WARN, seen="no key: its mail leaves unsigned", remedy=remedy)


def _shaping(settings: Settings) -> Check:
    try:
        shaping = read_shaping(settings.delivery.shaping)
        require_divisible(settings, shaping, settings.queue(SEND_QUEUE).shards)
    except PostroadError as error:
        return _failed("shaping", error)
    where = str(settings.delivery.shaping or "as shipped")
    shaped = len(shaped_senders(settings))
    return Check(
        part="shaping", health=Health.OK, seen=f"{where}: holds for {shaped} of {len(settings.senders)} senders"
    )


def _key(settings: Settings) -> Check:
    path = settings.state_dir / "secret.key"
    if settings.secret_key is not None:
        return Check(part="secret key", health=Health.OK, seen="from the settings")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        remedy = f"chmod 600 {path}"
        return Check(part="secret key", health=Health.FAIL, seen=f"{path} can be read by others", remedy=remedy)
    return Check(part="secret key", health=Health.OK, seen=str(path))


async def _queue(parts: Parts) -> AsyncIterator[Check]:
    limits = parts.settings.queue(SEND_QUEUE)
    try:
        # Server by server before the queue: of several, one may be fit and the others not.
        url = await asyncio.to_thread(redis_url, parts.settings)
        for finding in await inspect(url, sync_replicas=limits.sync_replicas):
            yield Check(part=finding.part, health=finding.health, seen=finding.seen, remedy=finding.remedy)
        queue = await parts.queue(SEND_QUEUE)
        stats = await queue.stats()
    except PostroadError as error:
        yield _failed(f"queue {SEND_QUEUE}", error)
        return
    waiting = stats.queued + stats.scheduled + stats.in_flight
    seen = f"{waiting:,} jobs, {stats.dead:,} dead letters, {stats.uncertain:,} uncertain"
    if limits.shards > 1:
        seen += f", in {limits.shards} shards"
    yield Check(part=f"queue {queue.name}", health=Health.OK, seen=seen)
    lag = next((group.pending + group.unread for group in stats.groups if group.name == GROUP), stats.events)
    health = Health.OK if lag < LAG_EVENTS else Health.WARN
    remedy = "" if health is Health.OK else "Is `postroad recorder` running, and the database fast enough?"
    yield Check(part="recorder", health=health, seen=f"{lag:,} events are not recorded yet", remedy=remedy)
    missing = await missing_jobs(parts.engine, queue)
    if missing > MISSING_JOBS:
        seen = f"the ledger has {missing:,} messages under way that the queue does not know"
        remedy = "Run `postroad queue rebuild`; the maintenance flow does it every ten minutes."
        yield Check(part=f"queue {queue.name}", health=Health.WARN, seen=seen, remedy=remedy)
    for wrong in await queue.audit():
        yield Check(part=f"queue {queue.name}", health=Health.FAIL, seen=wrong, remedy="Run `postroad queue rebuild`.")


async def _bounces(parts: Parts) -> Check:
    """Whether somebody works off what came back."""
    part = f"queue {BOUNCE_QUEUE}"
    try:
        stats = await (await parts.queue(BOUNCE_QUEUE)).stats()
    except PostroadError as error:
        return _failed(part, error)
    seen = f"{stats.queued:,} mails wait, {stats.dead:,} dead letters"
    if stats.oldest_ready_ms < UNWORKED_MS:
        return Check(part=part, health=Health.OK, seen=seen)
    seen += f", the oldest since {stats.oldest_ready_ms // 1000} s"
    return Check(
        part=part, health=Health.WARN, seen=seen, remedy="Is `postroad worker bounce:process` running, and fast enough?"
    )


async def _source(name: str, settings: SourceSettings) -> Check:
    """Whether mail could be fetched there now: it is opened as a pass opens it, and nothing is fetched."""
    part = f"source {name}"

    def waiting() -> int:
        source = open_source(settings)
        try:
            return source.waiting
        finally:
            source.close()

    try:
        mails = await asyncio.to_thread(waiting)
    except PostroadError as error:
        return _failed(part, error)
    return Check(part=part, health=Health.OK, seen=f"{settings.where}: {mails:,} mails wait")


async def _inbound(settings: Settings) -> Check:
    where = settings.inbound.smtp or settings.inbound.lmtp or ""
    said = await asyncio.to_thread(greeting, settings.inbound)
    if said is None or not said.startswith("220"):
        seen = f"{where}: {said or 'nobody answers'}"
        return Check(part="inbound", health=Health.FAIL, seen=seen, remedy="Is `postroad inbound` running here?")
    return Check(part="inbound", health=Health.OK, seen=f"{where}: {said}")


async def _routes(settings: Settings) -> AsyncIterator[Check]:
    for name, route in settings.routes.items():
        if route.kind is RouteKind.DIRECT:
            yield await _direct(name, settings)
        for relay in route.relay_pool:
            yield await _relay(name, relay, route.helo)


async def _relay(name: str, settings: RelaySettings, helo: str | None) -> Check:
    relay = relay_of(settings, helo, SystemClock())
    where = f"{relay.endpoint.name}, tls {settings.tls}"
    try:
        session = await Session.open(relay.endpoint, Timeouts(connect=5, greeting=5))
    except TransportError as error:
        remedy = "Is it running? host, port, tls and username are in postroad.toml, the password in the environment."
        if error.phase is Phase.AUTH:
            remedy = f"username is in postroad.toml, the password in POSTROAD_ROUTES__{name.upper()}__PASSWORD."
        return Check(part=f"route {name}", health=Health.FAIL, seen=f"{where}: {error}", remedy=remedy)
    pipelining = "pipelining" if session.pipelining else "no pipelining: slower"
    await session.close()
    return Check(part=f"route {name}", health=Health.OK, seen=f"{where}, {pipelining}")


async def _direct(name: str, settings: Settings) -> Check:
    """Whether DNS answers, on which all depends; that port 25 is open to the world only sending shows."""
    async with Resolver(settings.dns, SystemClock()) as resolver:
        root = await resolver.lookup(".", "NS")
    if root.found is Found.NO_ANSWER:
        remedy = "Mail would wait. Is the resolver of this machine, or that of dns.nameservers, running?"
        return Check(part=f"route {name}", health=Health.FAIL, seen=f"DNS does not answer: {root.why}", remedy=remedy)
    dane = "vouches for DNSSEC" if root.secure else "is not trusted with DNSSEC: no DANE"
    return Check(part=f"route {name}", health=Health.OK, seen=f"direct; the resolver answers and {dane}")


async def _web(settings: Settings) -> Check:
    """Whether what recipients are told to reach is there, as seen from this machine."""
    url = f"{settings.public_url.rstrip('/')}/healthz"
    remedy = f"Is `postroad web` running, and does {settings.public_url} lead to it? Nobody can unsubscribe otherwise."
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            response = await client.get(url)
        found = response.json() if response.headers.get("content-type") == "application/json" else {}
    except (httpx.HTTPError, ValueError) as error:
        seen = f"{url}: {str(error) or type(error).__name__}"
        return Check(part="public_url", health=Health.WARN, seen=seen, remedy=remedy)
    if not isinstance(found, dict) or found.get("service") != "postroad":
        seen = f"{url}: somebody else answers, with {response.status_code}"
        return Check(part="public_url", health=Health.WARN, seen=seen, remedy=remedy)
    if response.status_code != httpx.codes.OK:
        seen = f"{url}: it answers, and its database is away"
        return Check(part="public_url", health=Health.FAIL, seen=seen, remedy="Is the database reachable from there?")
    return Check(part="public_url", health=Health.OK, seen=url)


def _prefect_url() -> str:
    return os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api")


async def _prefect() -> Check:
    url = _prefect_url()
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            response = await client.get(f"{url}/health")
            response.raise_for_status()
            found = await client.get(f"{url}/deployments/name/campaign/campaign")
    except httpx.HTTPError as error:
        remedy = "Start it with `postroad up`, or set PREFECT_API_URL."
        return Check(
            part="prefect", health=Health.WARN, seen=f"{url}: {str(error) or type(error).__name__}", remedy=remedy
        )
    if found.status_code != httpx.codes.OK:
        remedy = "`python -m deployments.bootstrap` deploys the flows."
        return Check(part="prefect", health=Health.WARN, seen=f"{url}: no deployment campaign/campaign", remedy=remedy)
    return Check(part="prefect", health=Health.OK, seen=url)


async def _alerts(block: str) -> Check:
    """Whether somebody is told of what is paused. That a block reaches its people only a notification shows."""
    wanted = {"automations": {"name": {"any_": [ALERTS]}}}
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            answer = await client.post(f"{_prefect_url()}/automations/filter", json=wanted)
            found = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        return Check(part="alerts", health=Health.WARN, seen=str(error) or type(error).__name__)
    if not found:
        remedy = f"Make the block {block} in the UI of Prefect, then run `python -m deployments.bootstrap`."
        return Check(part="alerts", health=Health.FAIL, seen="their automation is not installed", remedy=remedy)
    if not found[0]["enabled"]:
        return Check(part="alerts", health=Health.WARN, seen="somebody turned their automation off")
    return Check(part="alerts", health=Health.OK, seen=f"go to the block {block}")
