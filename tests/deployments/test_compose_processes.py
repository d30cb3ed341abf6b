"""Each command of the Compose file runs as a process: its environment, secrets, entrypoint, health check and end.

The process has the variables of the image and of the service, and nothing else. Names of other containers, ports and
mounted folders are replaced by those of this machine. It may not make memory executable, as in the units of systemd.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.embedded import server_binary
from postroad.store.engine import open_engine, write
from tests.deployments.compose import FOLDER, ONE_SHOTS, OTHERS, ROOT, ComposeService, image_environment, services
from tests.kit.waiting import block_until
from tests.postgresql import PostgresqlServer
from tests.queue.nodes import free_port

pytestmark = [pytest.mark.timeout(600), pytest.mark.prefect, pytest.mark.postgresql]

PORTS = ("9464", "8080", "8087", "8088", "2525")
HEALTHY_WITHIN_S = 240.0
ALL = services()
PREFECT = ("prefect-worker", "prefect-services", "prefect-server")
ROLES = [name for name in ALL if name not in (*OTHERS, *ONE_SHOTS, *PREFECT)]

SETTINGS = """
[console.proxy]
header = "X-User"
addresses = ["192.0.2.1"]
[bounce.sources.box]
kind = "maildir"
path = "box"
"""

# PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: what MemoryDenyWriteExecute of systemd does. Older kernels refuse it.
START = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execvp(sys.argv[1], sys.argv[1:])"


class Installation:
    """The processes of the Compose file, in a folder of their own."""

    def __init__(self, folder: Path, postgresql: PostgresqlServer) -> None:
        self.folder = folder
        self._postgresql = postgresql
        self._prefect_port, self._valkey_port = free_port(), free_port()
        self._running: dict[str, tuple[subprocess.Popen[bytes], dict[str, str]]] = {}
        self._receivers: dict[str, socket.socket] = {}
        shutil.copytree(FOLDER / "settings", folder / "settings")
        with (folder / "settings/postroad.toml").open("a") as settings:
            settings.write(SETTINGS)
        for name in ("new", "cur", "tmp"):
            (folder / "settings/box" / name).mkdir(parents=True)
        (folder / "valkey").mkdir()
        self._make_secrets()

    def _make_secrets(self) -> None:
        """Run the script of the operator, and replace the names of hosts in what it wrote."""
        shutil.copy(FOLDER / "make-secrets", self.folder)
        subprocess.run([self.folder / "make-secrets"], check=True)
        password = (self.folder / "secrets/postgres_password").read_text()
        engine = open_engine(self._postgresql.url("postgres"))
        with write(engine) as connection:
            connection.execute(sa.text(f"CREATE ROLE postroad SUPERUSER LOGIN PASSWORD '{password}'"))
        engine.dispose()
        for name, database in (("database_url", "postroad"), ("prefect_database_url", "prefect")):
            own = self._postgresql.url(self._postgresql.create(template="template0")).partition("@")[2]
            self._replace(name, f"postgres:5432/{database}", own)
        for name in ("redis_url", "prefect_redis_url"):
            self._replace(name, "valkey:6379", f"127.0.0.1:{self._valkey_port}")

    def _replace(self, secret: str, text: str, by: str) -> None:
        path = self.folder / "secrets" / secret
        content = path.read_text()
        assert text in content
        path.chmod(0o600)
        path.write_text(content.replace(text, by))

    def start(self, service: ComposeService) -> subprocess.Popen[bytes]:
        """Start the command of a service as the image does."""
        replaced = self._replaced(service)
        program = [str(ROOT / "deployments/image/entrypoint"), *service.command]
        address = f"@postroad-{os.getpid()}-{service.name}"
        if service.name in ROLES:
            self._receivers[service.name] = receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            receiver.bind("\0" + address[1:])
            receiver.setblocking(False)
        environment = {**image_environment(), **service.environment, "NOTIFY_SOCKET": address}
        return self._run(service, program, environment, replaced)

    def start_valkey(self, service: ComposeService) -> None:
        program, *options = service.command
        assert program == "valkey-server"
        replaced = self._replaced(service)
        self._run(service, [str(server_binary()), *options, "--port", str(self._valkey_port)], {}, replaced)
        block_until(self._valkey_listens)

    def _valkey_listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._valkey_port)) == 0

    def _run(
        self, service: ComposeService, command: list[str], environment: dict[str, str], replaced: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        (self.folder / "state" / service.name).mkdir(parents=True)
        with (self.folder / f"{service.name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", START, *(substitute(word, replaced) for word in command)],
                env={name: substitute(value, replaced) for name, value in environment.items()},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._running[service.name] = process, replaced
        return process

    def _replaced(self, service: ComposeService) -> dict[str, str]:
        """Return what the names of the containers are on this machine."""
        return {
            "/opt/postroad/.venv/bin": str(Path(sys.executable).parent),
            "/opt/postroad": str(ROOT),
            "/etc/postroad": str(self.folder / "settings"),
            "/var/lib/postroad": str(self.folder / "state" / service.name),
            "/run/secrets": str(self.folder / "secrets"),
            "/data": str(self.folder / "valkey"),
            "prefect-server": "127.0.0.1",
            "4200": str(self._prefect_port),
            **{port: str(free_port()) for port in PORTS},
        }

    def is_healthy(self, service: ComposeService) -> bool:
        """Run the health check of a running service."""
        process, replaced = self._running[service.name]
        assert process.poll() is None, self.log(service)
        if service.health_command is None:
            return True
        environment = {"PATH": substitute(image_environment()["PATH"], replaced)}
        command = [substitute(word, replaced) for word in service.health_command]
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    def notifications(self, service: ComposeService) -> set[str]:
        """Return what the service has reported to systemd."""
        found = set()
        while True:
            try:
                found.add(self._receivers[service.name].recv(4096).decode())
            except BlockingIOError:
                return found

    def log(self, service: ComposeService) -> str:
        return (self.folder / f"{service.name}.log").read_text(errors="replace")[-4000:]

    def run_to_its_end(self, service: ComposeService) -> None:
        assert self.start(service).wait(HEALTHY_WITHIN_S) == 0, self.log(service)

    def stop(self, service: ComposeService) -> tuple[int, float]:
        """Return the status and the seconds that a service takes to end."""
        process, _ = self._running[service.name]
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        return process.wait(service.stop_within_s), time.monotonic() - began_s

    def close(self) -> None:
        for process, _ in self._running.values():
            process.kill()
            process.wait()
        for receiver in self._receivers.values():
            receiver.close()


def substitute(text: Any, replaced: dict[str, str]) -> str:
    """Replace the names in a text, but not those in a replacement. The order of the names matters."""
    names = "|".join(map(re.escape, replaced))
    return re.sub(rf"({names})(?!\w)", lambda match: replaced[match[0]], str(text))


@pytest.fixture(scope="module")
def installation(
    postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """All services, started in the order in which Compose starts them."""
    with ExitStack() as stack:
        running = Installation(tmp_path_factory.mktemp("compose"), postgresql_server)
        stack.callback(running.close)
        running.start_valkey(ALL["valkey"])
        running.start(ALL["prefect-server"])
        running.run_to_its_end(ALL["migrate"])
        for name in ROLES:
            running.start(ALL[name])
        block_until(lambda: running.is_healthy(ALL["prefect-server"]), HEALTHY_WITHIN_S, every_s=0.5)
        running.start(ALL["prefect-services"])
        running.run_to_its_end(ALL["bootstrap"])
        running.start(ALL["prefect-worker"])
        yield running


@pytest.mark.parametrize("name", ROLES)
def test_a_role_is_healthy_and_ends_in_time(installation: Installation, name: str) -> None:
    service = ALL[name]
    block_until(lambda: installation.is_healthy(service), HEALTHY_WITHIN_S, every_s=0.5)
    assert "READY=1" in installation.notifications(service)
    status, took_s = installation.stop(service)
    assert (status, took_s < service.stop_within_s) == (0, True), installation.log(service)
    assert "STOPPING=1" in installation.notifications(service)


def test_the_worker_of_prefect_runs_a_flow(installation: Installation) -> None:
    worker = ALL["prefect-worker"]
    words = ["prefect", "deployment", "run", "advance-campaigns/advance-campaigns", "--watch", "--watch-interval", "1"]
    command = ComposeService(name="flow-run", fields={**worker.fields, "command": words})
    assert installation.start(command).wait(HEALTHY_WITHIN_S) == 0, installation.log(command) + installation.log(worker)


@pytest.mark.parametrize("name", PREFECT)
def test_a_service_of_prefect_is_healthy_and_ends_in_time(installation: Installation, name: str) -> None:
    service = ALL[name]
    block_until(lambda: installation.is_healthy(service), HEALTHY_WITHIN_S, every_s=0.5)
    _, took_s = installation.stop(service)
    assert took_s < service.stop_within_s


def test_no_secret_and_no_traceback_is_in_a_log(installation: Installation) -> None:
    secrets = [path.read_text().split()[-1] for path in (installation.folder / "secrets").iterdir()]
    logs = {path.stem: path.read_text(errors="replace") for path in installation.folder.glob("*.log")}
    assert len(logs) > len(ROLES)
    assert not [(name, word) for name, log in logs.items() for word in (*secrets, "Traceback") if word in log]
