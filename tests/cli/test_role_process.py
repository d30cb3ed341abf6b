"""Health, notifications to systemd, and the longest time to the exit, of processes that run until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from postroad.app.context import open_context
from postroad.app.readiness import WITHOUT_REDIS, Dependency, Readiness, readiness_of
from postroad.monitor_server import serve_paths
from postroad.sd_notify import READY, STOPPING, WATCHDOG, SystemdNotifier
from postroad.settings import Settings
from postroad.store.engine import open_engine, write
from tests.conftest import RedisServer, a_server
from tests.kit.waiting import block_until, until
from tests.postgresql import PostgresqlServer
from tests.queue.nodes import free_port

ALL = frozenset(Dependency)
HEALTHY = {"database": "ok", "schema": "ok", "redis": "ok"}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with a_server("valkey") as server:
        yield server


@asynccontextmanager
async def a_process(
    settings: Settings, required: frozenset[Dependency] = ALL, stop: asyncio.Event | None = None
) -> AsyncIterator[tuple[Readiness, httpx.AsyncClient]]:
    """The readiness of a process, and a client of its port."""
    async with open_context(settings, engine=open_engine(url_of(settings))) as context:
        readiness = readiness_of(context, lambda: context.queue("email:send"), required, stop or asyncio.Event())
        paths = {"/livez": readiness.live_reply, "/readyz": readiness.ready_reply}
        async with serve_paths(paths, host="127.0.0.1", port=0) as port, httpx.AsyncClient(timeout=30) as http:
            http.base_url = httpx.URL(f"http://127.0.0.1:{port}")
            yield readiness, http
        await readiness.close()


def url_of(settings: Settings) -> str:
    assert settings.database_url is not None
    return settings.database_url.get_secret_value()


def settings_of(folder: Path, redis: RedisServer, database_url: str) -> Settings:
    return Settings(state_dir=folder / "state", redis_url=redis.url, database_url=database_url)


async def test_a_process_is_ready_between_its_start_and_its_stop(
    tmp_path: Path, redis: RedisServer, database_url: str
) -> None:
    stop = asyncio.Event()
    async with a_process(settings_of(tmp_path, redis, database_url), stop=stop) as (readiness, http):
        starting = await http.get("/readyz")
        assert (starting.status_code, starting.json()) == (503, {"ready": False, "state": "starting", **HEALTHY})
        readiness.running = True
        running = await http.get("/readyz")
        assert (running.status_code, running.json()) == (200, {"ready": True, "state": "running", **HEALTHY})
        stop.set()
        stopping = await http.get("/readyz")
        assert (stopping.status_code, stopping.json()) == (503, {"ready": False, "state": "stopping", **HEALTHY})
        alive = await http.get("/livez")
        assert (alive.status_code, alive.json()) == (200, {"state": "stopping"})
        assert (await http.post("/livez")).status_code == 404


async def test_only_what_a_role_requires_makes_it_unready(
    tmp_path: Path, redis: RedisServer, database_url: str
) -> None:
    settings = settings_of(tmp_path, redis, database_url)
    async with a_process(settings) as (worker, of_worker), a_process(settings, WITHOUT_REDIS) as (web, of_web):
        worker.running = web.running = True
        assert [(await http.get("/readyz")).status_code for http in (of_worker, of_web)] == [200, 200]
        redis.kill()
        replies = [await http.get("/readyz") for http in (of_worker, of_web)]
    assert [reply.status_code for reply in replies] == [503, 200]
    assert [reply.json()["redis"] for reply in replies] == ["unavailable", "unavailable"]


@pytest.mark.parametrize(("revision", "status"), [("0001", 503), ("9999", 200), (None, 503)])
async def test_an_older_schema_is_not_served_and_a_newer_one_is(
    tmp_path: Path, redis: RedisServer, database_url: str, revision: str | None, status: int
) -> None:
    engine = open_engine(database_url)
    with write(engine) as connection:
        connection.execute(sa.text("DELETE FROM alembic_version"))
        if revision is not None:
            connection.execute(sa.text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})
    engine.dispose()
    async with a_process(settings_of(tmp_path, redis, database_url)) as (readiness, http):
        readiness.running = True
        reply = await http.get("/readyz")
    assert reply.status_code == status
    assert reply.json()["schema"].startswith("ok" if status == 200 else f"at revision {revision or 'none'}, and")


@pytest.mark.postgresql
async def test_a_frozen_database_is_reported_by_a_deadline_and_takes_one_thread_a_check(
    tmp_path: Path, redis: RedisServer, own_postgresql: PostgresqlServer
) -> None:
    password = "hunter2-of-the-database"
    url = own_postgresql.url(own_postgresql.create()).replace("postgres@", f"postgres:{password}@")
    async with a_process(settings_of(tmp_path, redis, url)) as (readiness, http):
        readiness.running = True
        assert (await http.get("/readyz")).status_code == 200
        own_postgresql.freeze()
        try:
            began_s = time.monotonic()
            replies = await asyncio.gather(*(http.get("/readyz") for _ in range(20)))
            took_s = time.monotonic() - began_s
            assert {reply.status_code for reply in replies} == {503}
            assert replies[0].json() == {
                "ready": False,
                "state": "running",
                "database": "no answer within 2 s",
                "schema": "no answer within 2 s",
                "redis": "ok",
            }
            assert took_s < 20  # One after the other would take 40 s.
            # The threads of the loop are free: of twenty requests, two checks wait.
            async with asyncio.timeout(2):
                await asyncio.to_thread(int)
        finally:
            own_postgresql.thaw()
        await until(lambda: _is_ready(http))
        own_postgresql.stop()
        away = await http.get("/readyz")
        assert (away.status_code, away.json()["database"]) == (503, "unavailable")
        assert password not in away.text
        own_postgresql.start()


async def _is_ready(http: httpx.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200


@contextmanager
def systemd_socket(address: str) -> Iterator[socket.socket]:
    """The socket at which systemd receives notifications."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if address.startswith("@") else address)
        receiver.settimeout(20)
        yield receiver


def pending(receiver: socket.socket) -> list[str]:
    """Return the notifications that have arrived."""
    receiver.setblocking(False)
    found = []
    try:
        while True:
            found.append(receiver.recv(4096).decode())
    except BlockingIOError:
        return found


async def test_the_watchdog_gets_pings_from_the_event_loop(tmp_path: Path) -> None:
    address, stop = str(tmp_path / "notify"), asyncio.Event()
    with systemd_socket(address) as receiver:
        systemd = SystemdNotifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"})
        assert systemd.watchdog_s == 0.1
        async with systemd.watching(stop):
            for _ in range(3):
                seen = await until(lambda: pending(receiver))
                assert set(seen) == {WATCHDOG}
            pending(receiver)
            time.sleep(0.3)  # noqa: ASYNC251  (the event loop is blocked)
            assert pending(receiver) == []
            stop.set()
            await until(lambda: STOPPING in pending(receiver))
        await asyncio.sleep(0.2)
        pending(receiver)
        await asyncio.sleep(0.2)
        assert pending(receiver) == []


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "/nowhere/notify"},
        {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "100000"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "soon"},
    ],
)
async def test_a_process_works_without_systemd_and_with_a_watchdog_of_another(environment: dict[str, str]) -> None:
    systemd = SystemdNotifier(environment)
    assert systemd.watchdog_s is None
    async with systemd.watching(asyncio.Event()):
        systemd.send(READY)


@contextmanager
def a_command(folder: Path, environment: dict[str, str], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "postroad", *words],
            env={**os.environ, **environment},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def http_status(port: int, path: str) -> int:
    """Return the status of a path, or 0 while the port is closed."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=30).status_code
    except httpx.TransportError:
        return 0


def test_web_reports_to_systemd_and_serves_its_metrics_and_health(tmp_path: Path, redis: RedisServer) -> None:
    port, address = free_port(), f"@postroad-test-{os.getpid()}"
    environment = {
        "POSTROAD_STATE_DIR": str(tmp_path / "state"),
        "POSTROAD_REDIS_URL": redis.url,
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "200000",
    }
    with (
        systemd_socket(address) as receiver,
        a_command(tmp_path, environment, "web", "--port", "0", "--metrics-port", str(port)) as process,
    ):
        while receiver.recv(4096) != READY.encode():
            pass
        assert [http_status(port, path) for path in ("/livez", "/readyz", "/metrics")] == [200, 200, 200]
        served = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert 'postroad_queue_up{queue="email:send"} 1.0' in served
        assert [f'postroad_dependency_up{{dependency="{name}"}} 1.0' in served for name in Dependency] == [True] * 3
        redis.kill()
        assert http_status(port, "/readyz") == 200
        served = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert 'postroad_queue_up{queue="email:send"} 0.0' in served
        assert 'postroad_dependency_up{dependency="redis"} 0.0' in served
        assert 'postroad_dependency_up{dependency="database"} 1.0' in served
        pending(receiver)
        block_until(lambda: WATCHDOG in pending(receiver))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, (tmp_path / "log").read_text()
        assert STOPPING in pending(receiver)


@pytest.mark.postgresql
def test_a_process_exits_in_time_while_its_database_does_not_answer(
    tmp_path: Path, redis: RedisServer, own_postgresql: PostgresqlServer
) -> None:
    port = free_port()
    environment = {
        "POSTROAD_STATE_DIR": str(tmp_path / "state"),
        "POSTROAD_REDIS_URL": redis.url,
        "POSTROAD_DATABASE_URL": own_postgresql.url(own_postgresql.create()),
    }
    words = ("worker", "bounce:process", "--drain", "500ms", "--metrics-port", str(port))
    with a_command(tmp_path, environment, *words) as process:
        block_until(lambda: http_status(port, "/readyz") == 200)
        own_postgresql.freeze()
        try:
            assert http_status(port, "/readyz") == 503
            assert http_status(port, "/livez") == 200
            began_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 1
            assert time.monotonic() - began_s < 7
        finally:
            own_postgresql.thaw()
    assert "not stopped within 5.5 s" in (tmp_path / "log").read_text()
