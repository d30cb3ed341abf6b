"""The whole of Postroad on one machine: every process that a campaign needs, started in order and stopped with us."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from postroad.bounce.sources.listener import greeting
from postroad.delivery.job import WARMUP_QUEUE
from postroad.embedded import ensure_redis, redis_running, stop_redis
from postroad.errors import StateError, UsageError
from postroad.local.prefect import PrefectServer, choose_port
from postroad.local.prefect_access import LOOPBACK, forget_url
from postroad.local.processes import Command, Supervisor
from postroad.parts import ready_engine
from postroad.settings import CONFIG_VARIABLE, Settings
from postroad.state_folder import close_state_folder

SANDBOX_ROUTE = "sandbox"
Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class House:
    """A running house."""

    settings: Settings
    prefect: PrefectServer
    supervisor: Supervisor
    sandbox_dir: Path | None


@asynccontextmanager
async def open_house(settings: Settings, report: Report) -> AsyncIterator[House]:
    """Start everything that the settings do not name elsewhere, and stop what was started. Raises UnavailableError.

    Children read the same settings file; what is chosen here, such as a free port, reaches them by the environment.
    """
    checkout = _checkout(settings)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    close_state_folder(settings.state_dir)
    with (settings.state_dir / "house.lock").open("w") as lock:
        _lock(lock, settings)
        settings = _choose_ports(settings)
        prefect = PrefectServer(state=settings.state_dir, checkout=checkout, port=choose_port())
        os.environ["PREFECT_API_URL"] = prefect.api_url
        owns_redis = settings.redis_url is None and not redis_running(settings.state_dir)
        try:
            async with Supervisor(settings.state_dir, stop_within_s=30) as supervisor:
                house = House(
                    settings=settings,
                    prefect=prefect,
                    supervisor=supervisor,
                    sandbox_dir=settings.state_dir / "sandbox" if SANDBOX_ROUTE in settings.routes else None,
                )
                async with asyncio.TaskGroup() as group:
                    group.create_task(_start_prefect(house, report))
                    group.create_task(_start_delivery(house, report))
                yield house
        finally:
            forget_url(settings.state_dir)
            if owns_redis:
                await asyncio.to_thread(stop_redis, settings.state_dir)


def _checkout(settings: Settings) -> Path:
    if not (settings.base_dir / "prefect.yaml").is_file():
        raise UsageError(
            "flows, tasks and prefect.yaml are not here",
            where=str(settings.base_dir),
            remedy="Run it in a checkout of Postroad: `postroad up` deploys its flows.",
        )
    return settings.base_dir


def _lock(file: TextIO, settings: Settings) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateError(
            "another `postroad up` or `postroad demo` runs on this state folder",
            where=str(settings.state_dir),
            remedy="Stop it with Ctrl-C, or name another folder in POSTROAD_STATE_DIR.",
        ) from None


def _choose_ports(settings: Settings) -> Settings:
    """Let sandbox and web listen where the settings say, or, if that port is taken, anywhere free; tell the children.

    Links that lead to this machine follow web to its port; any other public_url is somebody's to lead here.
    """
    os.environ["POSTROAD_STATE_DIR"] = str(settings.state_dir)
    if settings.config_path is not None:
        os.environ[CONFIG_VARIABLE] = str(settings.config_path)
    route = settings.routes.get(SANDBOX_ROUTE)
    if route is not None and route.host is not None:
        port = choose_port(route.port, route.host)
        os.environ[f"POSTROAD_ROUTES__{SANDBOX_ROUTE}__PORT"] = str(port)
    port = choose_port(settings.web.port, settings.web.host)
    os.environ["POSTROAD_WEB__PORT"] = str(port)
    reached_at = urlsplit(settings.public_url).hostname
    if reached_at in LOOPBACK:
        os.environ["POSTROAD_PUBLIC_URL"] = f"http://{reached_at}:{port}"
    return Settings.load(settings.config_path)


async def _start_prefect(house: House, report: Report) -> None:
    await house.prefect.start(house.supervisor)
    report("Prefect")


async def _start_delivery(house: House, report: Report) -> None:
    settings, supervisor = house.settings, house.supervisor
    if settings.redis_url is None:
        await asyncio.to_thread(ensure_redis, settings.state_dir)
        report("queue server")
    engine = await asyncio.to_thread(ready_engine, settings)
    engine.dispose()
    report("database")
    route = settings.routes.get(SANDBOX_ROUTE)
    host = route.host if route is not None else None
    if route is not None and host is not None:
        command = _postroad("sandbox", "sandbox", "--port", str(route.port), "--directory", str(house.sandbox_dir))

        async def listening() -> bool:
            return await asyncio.to_thread(_answers, host, route.port)

        await supervisor.start(command, ready=listening)
        report("sandbox")
    await supervisor.start(_postroad("recorder", "recorder"))
    await supervisor.start(_postroad("worker", "worker"))
    if any(sender.warmup is not None and sender.warmup.seeds is not None for sender in settings.senders.values()):
        await supervisor.start(_postroad("warmup-worker", "worker", WARMUP_QUEUE))
    report("worker and recorder")
    await _start_bounces(settings, supervisor, report)
    web = settings.web

    async def serving() -> bool:
        return await asyncio.to_thread(_answers, web.host, web.port)

    await supervisor.start(_postroad("web", "web"), ready=serving)
    report("web")


async def _start_bounces(settings: Settings, supervisor: Supervisor, report: Report) -> None:
    """Start what takes in and judges what comes back, as far as the settings ask for it."""
    if settings.inbound.enabled or settings.bounce.sources:
        await supervisor.start(_postroad("bounce-worker", "worker", "bounce:process"))
        report("bounce worker")
    if settings.bounce.sources:
        await supervisor.start(_postroad("bounce-watch", "bounce", "watch"))
        report("bounce sources")
    if settings.inbound.enabled:
        inbound = settings.inbound

        async def taking() -> bool:
            return await asyncio.to_thread(greeting, inbound) is not None

        await supervisor.start(_postroad("inbound", "inbound"), ready=taking)
        report("inbound")


def _postroad(name: str, *arguments: str) -> Command:
    return Command(name=name, argv=[sys.executable, "-m", "postroad", *arguments], env=dict(os.environ))


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
