"""Prefect on this machine: the commands of its server, worker and deployment, and their environment.

It does not import Prefect, which takes more than a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postroad.errors import UnavailableError
from postroad.local.prefect_access import (
    DEFAULT_PORT,
    HOST,
    LOOPBACK,
    PASSWORD_FILE,
    PrefectAccess,
    password_of,
    publish_url,
)
from postroad.local.prefect_api import PrefectApi
from postroad.local.prefect_pool import POOL
from postroad.local.processes import Command, Supervisor

HEARTBEAT_S: Final = 30
"""Shortest interval that Prefect allows for heartbeats of a flow run. A run that misses three is declared crashed."""

STARTS_WITHIN_S: Final = 240
"""A fresh database is migrated first, which takes 6 of the 12 s on two idle cores, and more than 90 s on busy ones.

A server that ends is reported at once, so only one that hangs is waited for."""

DAY_S: Final = 86_400
VACUUM: Final = {
    # Our schedules make 724 runs a day. By default Prefect keeps all of them.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * DAY_S),
    "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": f'{{"prefect.flow-run.heartbeat": {DAY_S}}}',
}
"""How long the server keeps runs with their logs, states and artifacts, and heartbeats. It keeps other events for
7 days. It deletes every hour, 200 rows in a transaction."""


def choose_port(preferred: int = DEFAULT_PORT, host: str = HOST) -> int:
    """Return the preferred port if it is free on this host, otherwise another free one.

    Raises:
        UnavailableError: No port is free.
    """
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    raise UnavailableError(f"no port is free on {host}")


@dataclass(frozen=True, kw_only=True)
class PrefectServer:
    """A Prefect server, its worker and its deployments.

    Attributes:
        state: The folder of all their data.
        files: The folder that contains `flows`, `tasks`, `deployments` and `prefect.yaml`.
        port: The port of the server on 127.0.0.1.
    """

    state: Path
    files: Path
    port: int

    @property
    def home(self) -> Path:
        return self.state / "prefect"

    @property
    def url(self) -> str:
        """Address of the UI."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    @property
    def password_file(self) -> Path:
        """The file with the password that the UI asks for."""
        return self.state / PASSWORD_FILE

    def access(self) -> PrefectAccess:
        """Return the address and password for a client. The first call generates the password."""
        return PrefectAccess(url=self.url, password=password_of(self.state))

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the complete environment of a child process.

        Args:
            base: What it inherits, by default the environment of this process. Its settings of Prefect are left out.
        """
        given = os.environ if base is None else base
        inherited = {name: value for name, value in given.items() if not name.startswith("PREFECT_")}
        python_path = [str(self.files), *filter(None, [inherited.get("PYTHONPATH")])]
        programs = [str(Path(sys.executable).parent), *filter(None, [inherited.get("PATH")])]
        return inherited | {
            "DO_NOT_TRACK": "1",
            # A worker runs each flow as `python` in a temporary folder. By these two variables it finds the flows
            # and this interpreter.
            "PYTHONPATH": os.pathsep.join(python_path),
            "PATH": os.pathsep.join(programs),
            "PYTHONUNBUFFERED": "1",
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_UI_URL": self.url,
            **self._protection(),
            **VACUUM,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self.home / 'prefect.db'}",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # Otherwise a child without the address would silently start a server of its own.
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            # By default leases are in the server's memory and the slots that they hold in its database. A slot that
            # was held when the server stopped would stay taken.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "postroad",
            # On SQLite the next flow run waits until the recorder has processed a burst of task runs: after a hundred
            # of them 6 s with the default, 2 s with this.
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
            # A write that meets another is refused with "database is locked", and its client retries after 2 s. Fewer
            # transactions mean fewer waits.
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
            "PREFECT_CLI_PROMPT": "false",
        }

    def _protection(self) -> dict[str, str]:
        """Return the settings that protect the API: a client of the API can run code on the workers."""
        password = password_of(self.state)
        return {
            "PREFECT_SERVER_API_AUTH_STRING": password,
            "PREFECT_API_AUTH_STRING": password,
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            # The UI calls 127.0.0.1 even if it was opened as localhost.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{host}:{self.port}" for host in LOOPBACK),
        }

    def server_command(self) -> Command:
        """Return the command of the server: API, UI and services in one process."""
        self.home.mkdir(parents=True, exist_ok=True)
        factory = ("--factory", "deployments.server:create_app")
        address = ("--host", HOST, "--port", str(self.port), "--log-level", "warning", "--loop", "asyncio")
        # `prefect server start` prints a banner and does the same with Prefect's unchanged application.
        return self._python("prefect-server", "-m", "uvicorn", *factory, *address)

    def deploy_command(self) -> Command:
        """Return the command that installs everything on the server and ends."""
        return self._python("prefect-deploy", "-m", "deployments.bootstrap", "--wait-seconds", str(STARTS_WITHIN_S))

    def worker_command(self) -> Command:
        """Return the command of the worker that runs flows as processes on this machine."""
        options = ("--pool", POOL, "--type", "process", "--name", "local")
        return self._python("prefect-worker", "-m", "prefect", "worker", "start", *options)

    def client(self) -> PrefectApi:
        return PrefectApi(self.access())

    async def start(self, supervisor: Supervisor) -> None:
        """Start the server, install everything on it, and start the worker.

        Raises:
            UnavailableError: One of them failed. The error has the end of its log.
        """
        publish_url(self.state, self.url)
        async with self.client() as api:
            # The deployment imports for 3 s before it connects, on the core that the starting server leaves free.
            deployed = asyncio.create_task(supervisor.run(self.deploy_command()))
            try:
                await supervisor.start(self.server_command(), ready=api.is_own, ready_within_s=STARTS_WITHIN_S)
                await supervisor.start(self.worker_command(), ready=api.has_worker)
                await deployed
            finally:
                deployed.cancel()
                await asyncio.gather(deployed, return_exceptions=True)

    def _python(self, name: str, *arguments: str) -> Command:
        return Command(name=name, argv=[sys.executable, *arguments], env=self.environment(), cwd=self.files)
