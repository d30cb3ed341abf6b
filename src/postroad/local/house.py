"""The whole of Postroad on one machine: every process that a campaign needs, started in order and stopped with us."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from postroad.app.context import ready_engine
from postroad.bounce.sources.listener import greeting
from postroad.delivery.job import WARMUP_QUEUE
from postroad.embedded import ensure_redis, redis_running, stop_redis
from postroad.errors import StateError, UnavailableError, UsageError
from postroad.local.prefect import PrefectServer, choose_port
from postroad.local.prefect_access import HOST, LOOPBACK, forget_url
from postroad.local.processes import Command, Supervisor
from postroad.settings import CONFIG_VARIABLE, Settings
from postroad.state_folder import close_state_folder

SANDBOX_ROUTE = "sandbox"
PORT_ATTEMPTS = 4
"""Starts with other ports, each after another program took one between its choice and its use."""
Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class LocalStack:
    """A running house."""

    settings: Settings
    prefect: PrefectServer
    supervisor: Supervisor
    sandbox_dir: Path | None

    @property
    def ports(self) -> list[tuple[str, int]]:
        """Hosts and ports that were chosen for it."""
        route, web = self.settings.routes.get(SANDBOX_ROUTE), self.settings.web
        sandbox = [(route.host, route.port)] if route is not None and route.host is not None else []
        return [(HOST, self.prefect.port), (web.host, web.port), *sandbox]


@asynccontextmanager
async def open_house(settings: Settings, report: Report) -> AsyncIterator[LocalStack]:
    """Start everything that the settings do not name elsewhere, and stop what was started. Raises UnavailableError.

    Children read the same settings file; what is chosen here, such as a free port, reaches them by the environment.
    """
    checkout = _checkout(settings)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    close_state_folder(settings.state_dir)
    with (settings.state_dir / "house.lock").open("w") as lock:
        _lock(lock, settings)
        owns_redis = settings.redis_url is None and not redis_running(settings.state_dir)
        try:
            async with AsyncExitStack() as running:
                yield await _start(running, settings, checkout, report)
        finally:
            forget_url(settings.state_dir)
            if owns_redis:
                await asyncio.to_thread(stop_redis, settings.state_dir)


async def _start(running: AsyncExitStack, settings: Settings, checkout: Path, report: Report) -> LocalStack:
    """Start every process; `running` stops them. If another program took a chosen port meanwhile, start on other ports.

    Raises:
        UnavailableError: A process did not start, or other programs took the ports each time.
    """
    for attempts_left in reversed(range(PORT_ATTEMPTS)):
        house = _choose_ports(settings, checkout)
        try:
            async with AsyncExitStack() as starting:
                await starting.enter_async_context(house.supervisor)
                async with asyncio.TaskGroup() as group:
                    group.create_task(_start_prefect(house, report))
                    group.create_task(_start_delivery(house, report))
                # A server of another program may have answered in place of a child that could not listen.
                house.supervisor.require_alive()
                running.push_async_exit(starting.pop_all())
        except (UnavailableError, ExceptionGroup) as error:
            # All children are stopped, so the listener on a port that is taken now is not ours.
            taken = [str(port) for host, port in house.ports if choose_port(port, host) != port]
            if not taken:
                raise
            if not attempts_left:
                raise UnavailableError(
                    f"port {' and '.join(taken)} is taken by another program",
                    remedy="Stop that program, or another `postroad up` that starts now, and run the command again.",
                ) from error
            report(f"other ports: {' and '.join(taken)} is taken")
        else:
            return house
    raise AssertionError  # The last attempt returns or raises.


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


def house_is_open(state_dir: Path) -> bool:
    """Whether a `postroad up` or `postroad demo` runs on this state folder."""
    try:
        with (state_dir / "house.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _choose_ports(settings: Settings, checkout: Path) -> LocalStack:
    """Choose the ports of Prefect, sandbox and web: the usual ones, or free ones if those are taken.

    Children read them from the environment. Nothing is started.

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
    prefect = PrefectServer(state=settings.state_dir, checkout=checkout, port=choose_port())
    os.environ["PREFECT_API_URL"] = prefect.api_url
    return LocalStack(
        settings=Settings.load(settings.config_path),
        prefect=prefect,
        supervisor=Supervisor(settings.state_dir, stop_within_s=30),
        sandbox_dir=settings.state_dir / "sandbox" if SANDBOX_ROUTE in settings.routes else None,
    )


async def _start_prefect(house: LocalStack, report: Report) -> None:
    await house.prefect.start(house.supervisor)
    report("Prefect")


async def _start_delivery(house: LocalStack, report: Report) -> None:
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
