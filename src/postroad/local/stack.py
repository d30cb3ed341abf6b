"""Starts and stops the local stack: every process that a campaign needs, on one machine."""

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
from postroad.local.prefect_access import HOST, LOOPBACK, forget_url
from postroad.local.prefect_server import PrefectServer, choose_port
from postroad.local.processes import Command, Supervisor
from postroad.local.project_files import project_files
from postroad.settings import CONFIG_NAME, CONFIG_VARIABLE, Settings
from postroad.settings.queues import WEBHOOK_QUEUE
from postroad.state_folder import close_state_folder

SANDBOX_ROUTE = "sandbox"
PORT_ATTEMPTS = 4
"""How often the stack is started on other ports, when another program takes a port after it was chosen."""
LOCK_FILE = "house.lock"
"""The name that the version before locks: two versions must not run on one state folder."""
Report = Callable[[str], None]
"""Called with the name of each part once it runs."""


@dataclass(frozen=True, kw_only=True)
class LocalStack:
    """A running local stack."""

    settings: Settings
    prefect: PrefectServer
    supervisor: Supervisor
    sandbox_dir: Path | None

    @property
    def ports(self) -> list[tuple[str, int]]:
        """The hosts and ports that were chosen for it."""
        route, web, console = self.settings.routes.get(SANDBOX_ROUTE), self.settings.web, self.settings.console
        sandbox = [(route.host, route.port)] if route is not None and route.host is not None else []
        return [(HOST, self.prefect.port), (web.host, web.port), (console.host, console.port), *sandbox]


@asynccontextmanager
async def start_stack(settings: Settings, report: Report) -> AsyncIterator[LocalStack]:
    """Start all parts for which the settings name no server of their own, and stop them at exit.

    Child processes read the same settings file. What is chosen here, such as a free port, they get as environment
    variables.

    Args:
        settings: Of a file, which child processes read too.
        report: Called with the name of each part once it runs.

    Yields:
        The running stack.

    Raises:
        StateError: Another stack runs on the same state folder.
        UnavailableError: A process did not start.
        UsageError: The settings are not those of a file.
    """
    require_settings_file(settings)
    files = project_files()
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    close_state_folder(settings.state_dir)
    with (settings.state_dir / LOCK_FILE).open("w") as lock:
        _lock(lock, settings)
        owns_redis = settings.redis_url is None and not redis_running(settings.state_dir)
        try:
            async with AsyncExitStack() as running:
                yield await _start(running, settings, files, report)
        finally:
            forget_url(settings.state_dir)
            if owns_redis:
                await asyncio.to_thread(stop_redis, settings.state_dir)


async def _start(running: AsyncExitStack, settings: Settings, files: Path, report: Report) -> LocalStack:
    """Start every process. If another program took a chosen port in the meantime, start again on other ports.

    Args:
        running: Stops the processes when it is closed.
        settings: Name the servers that are not started here.
        files: The folder with the flows.
        report: Called with the name of each part once it runs.

    Returns:
        The running stack.

    Raises:
        UnavailableError: A process did not start, or other programs took the ports each time.
    """
    attempts = 1
    while True:
        stack = _choose_ports(settings, files)
        try:
            async with AsyncExitStack() as starting:
                await starting.enter_async_context(stack.supervisor)
                async with asyncio.TaskGroup() as group:
                    group.create_task(_start_prefect(stack, report))
                    group.create_task(_start_delivery(stack, report))
                # If a child could not listen, a server of another program may have replied in its place.
                stack.supervisor.require_alive()
                running.push_async_exit(starting.pop_all())
        except (UnavailableError, ExceptionGroup) as error:
            # All children are stopped, so a port that is taken now belongs to another program.
            taken = [str(port) for host, port in stack.ports if choose_port(port, host) != port]
            if not taken:
                raise
            if attempts == PORT_ATTEMPTS:
                raise UnavailableError(
                    f"port {' and '.join(taken)} is taken by another program",
                    remedy="Stop that program, or another `postroad up` that starts now, and run the command again.",
                ) from error
            report(f"other ports: {' and '.join(taken)} is taken")
            attempts += 1
        else:
            return stack


def require_settings_file(settings: Settings) -> None:
    """Require a settings file.

    Args:
        settings: The settings.

    Raises:
        UsageError: There is no settings file, so the command was probably started in another folder than was meant.
    """
    if settings.config_path is None:
        raise UsageError(
            f"there is no {CONFIG_NAME} here",
            where=str(settings.base_dir),
            remedy="Run the command in the folder that has it. `postroad init my-mail` makes a folder with one.",
        )


def _lock(file: TextIO, settings: Settings) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateError(
            "another `postroad up` or `postroad demo` runs on this state folder",
            where=str(settings.state_dir),
            remedy="Stop it with Ctrl-C, or name another folder in POSTROAD_STATE_DIR.",
        ) from None


def stack_is_running(state_dir: Path) -> bool:
    """Return whether a `postroad up` or `postroad demo` runs on this state folder."""
    try:
        with (state_dir / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _choose_ports(settings: Settings, files: Path) -> LocalStack:
    """Choose the ports of Prefect, sandbox, web and console: the usual ports, or free ones if those are taken.

    Child processes read them from the environment. Nothing is started. A `public_url` on this machine gets the chosen
    port of web. Any other `public_url` is left as it is: its operator forwards it to web.

    Returns:
        The stack, whose processes are still to be started.
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
    console = settings.console
    os.environ["POSTROAD_CONSOLE__PORT"] = str(choose_port(console.port, console.host))
    reached_at = urlsplit(settings.public_url).hostname
    if reached_at in LOOPBACK:
        os.environ["POSTROAD_PUBLIC_URL"] = f"http://{reached_at}:{port}"
    prefect = PrefectServer(state=settings.state_dir, files=files, port=choose_port())
    os.environ["PREFECT_API_URL"] = prefect.api_url
    return LocalStack(
        settings=Settings.load(settings.config_path),
        prefect=prefect,
        supervisor=Supervisor(settings.state_dir, stop_within_s=30),
        sandbox_dir=settings.state_dir / "sandbox" if SANDBOX_ROUTE in settings.routes else None,
    )


async def _start_prefect(stack: LocalStack, report: Report) -> None:
    await stack.prefect.start(stack.supervisor)
    report("Prefect")


async def _start_delivery(stack: LocalStack, report: Report) -> None:
    settings, supervisor = stack.settings, stack.supervisor
    if settings.redis_url is None:
        await asyncio.to_thread(ensure_redis, settings.state_dir)
        report("queue server")
    engine = await asyncio.to_thread(ready_engine, settings)
    engine.dispose()
    report("database")
    route = settings.routes.get(SANDBOX_ROUTE)
    host = route.host if route is not None else None
    if route is not None and host is not None:
        command = _postroad("sandbox", "sandbox", "--port", str(route.port), "--directory", str(stack.sandbox_dir))

        async def listening() -> bool:
            return await asyncio.to_thread(_answers, host, route.port)

        await supervisor.start(command, ready=listening)
        report("sandbox")
    await supervisor.start(_postroad("recorder", "recorder"))
    await supervisor.start(_postroad("worker", "worker"))
    if any(sender.warmup is not None and sender.warmup.seeds is not None for sender in settings.senders.values()):
        await supervisor.start(_postroad("warmup-worker", "worker", WARMUP_QUEUE))
    report("worker and recorder")
    await start_bounces(settings, supervisor, report)
    if settings.webhooks_out:
        await supervisor.start(_postroad("webhook-worker", "worker", WEBHOOK_QUEUE))
        report("webhook worker")
    await _start_server("web", settings.web.host, settings.web.port, supervisor, report)
    await _start_server("console", settings.console.host, settings.console.port, supervisor, report)


async def _start_server(name: str, host: str, port: int, supervisor: Supervisor, report: Report) -> None:
    """Start `postroad web` or `postroad console`, and wait until it listens."""

    async def listening() -> bool:
        return await asyncio.to_thread(_answers, host, port)

    await supervisor.start(_postroad(name, name), ready=listening)
    report(name)


async def start_bounces(settings: Settings, supervisor: Supervisor, report: Report) -> None:
    """Start the processes that receive and classify bounces, as far as the settings enable them.

    Args:
        settings: Enable the listener and the sources.
        supervisor: Starts the processes.
        report: Called with the name of each part once it runs.

    Raises:
        ChildError: A process did not start.
    """
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
