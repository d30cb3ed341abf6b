"""The Prefect of a local house: how its processes are started, and how it is spoken to.

Nothing here imports Prefect. Its server, worker and deployment are commands; everything else is its HTTP API.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import httpx

from postroad.clock import Clock, SystemClock
from postroad.errors import ConfigError, StateError, UnavailableError, UsageError
from postroad.local.prefect_access import (
    DEFAULT_PORT,
    HOST,
    LOOPBACK,
    PASSWORD_FILE,
    PrefectAccess,
    find_prefect,
    password_of,
    publish_url,
)
from postroad.local.prefect_pool import POOL
from postroad.local.processes import Command, Supervisor
from postroad.settings import Settings

ALERTS: Final = "postroad: tell somebody what is paused or held back"
"""Name of the automation, which is there where the settings have an `alert_block`."""
POLL_EVERY_S: Final = 0.25
REQUEST_WITHIN_S: Final = 60.0
"""A Prefect on SQLite may wait that long for its own writers when the disk is busy."""
HEARTBEAT_S: Final = 30
"""Shortest heartbeat of a flow run that Prefect allows. One that stops is declared crashed after three of
them."""

STARTS_WITHIN_S: Final = 90
"""A fresh database is migrated first, which takes 6 of the 12 s on two idle cores."""

DAY_S: Final = 86_400
VACUUM: Final = {
    # Our schedules make 724 runs a day. Prefect keeps all of them unless it is told otherwise.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * DAY_S),
    "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": f'{{"prefect.flow-run.heartbeat": {DAY_S}}}',
}
"""For how long the server keeps runs with their logs, states and artifacts, and heartbeats. Other events it keeps for
7 days. It deletes every hour, 200 rows in a transaction."""

TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


def choose_port(preferred: int = DEFAULT_PORT, host: str = HOST) -> int:
    """Return the preferred port if it is free on this host, another free one otherwise."""
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    raise UnavailableError(f"no port is free on {host}")


@dataclass(frozen=True, kw_only=True)
class PrefectServer:
    """A Prefect server, its worker and its deployments, all with their data inside `state`.

    `checkout` is the folder that holds `flows`, `tasks`, `deployments` and `prefect.yaml`.
    """

    state: Path
    checkout: Path
    port: int

    @property
    def home(self) -> Path:
        return self.state / "prefect"

    @property
    def url(self) -> str:
        """Where a person opens the UI."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    @property
    def password_file(self) -> Path:
        """The file with the password that the UI asks for."""
        return self.state / PASSWORD_FILE

    def access(self) -> PrefectAccess:
        """Return how a client reaches this server. The first call generates the password."""
        return PrefectAccess(url=self.url, password=password_of(self.state))

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment for a child: `base`, by default ours, with no Prefect but ours."""
        given = os.environ if base is None else base
        inherited = {name: value for name, value in given.items() if not name.startswith("PREFECT_")}
        python_path = [str(self.checkout), *filter(None, [inherited.get("PYTHONPATH")])]
        programs = [str(Path(sys.executable).parent), *filter(None, [inherited.get("PATH")])]
        return inherited | {
            "DO_NOT_TRACK": "1",
            # A worker runs each flow in a temporary folder, as `python`: the checkout and our interpreter
            # are found by these two, from anywhere.
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
            # A child that lost the address would otherwise start a server of its own, unseen.
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            # By default leases are in the server's memory, and the slots that they hold in its database: a slot that
            # was held when the server stopped stayed taken.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "postroad",
            # On SQLite the recorder falls behind a burst of task runs and the next flow run waits for it:
            # 6 s after a hundred of them with the default, 2 s with this.
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
            # Each write that meets another is refused with "database is locked", and its client comes back
            # 2 s later: the fewer the transactions, the fewer the waits.
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
            "PREFECT_CLI_PROMPT": "false",
        }

    def _protection(self) -> dict[str, str]:
        """What keeps strangers out: whoever may call the API runs code on the workers."""
        password = password_of(self.state)
        return {
            "PREFECT_SERVER_API_AUTH_STRING": password,
            "PREFECT_API_AUTH_STRING": password,
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            # The UI calls 127.0.0.1 even if a person opened it as localhost.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{host}:{self.port}" for host in LOOPBACK),
        }

    def server_command(self) -> Command:
        """Return the server: API, UI and services in one process."""
        self.home.mkdir(parents=True, exist_ok=True)
        factory = ("--factory", "deployments.server:create_app")
        address = ("--host", HOST, "--port", str(self.port), "--log-level", "warning", "--loop", "asyncio")
        # Its own command prints a banner, and then does the same with an application that is as it comes.
        return self._python("prefect-server", "-m", "uvicorn", *factory, *address)

    def deploy_command(self) -> Command:
        """Return what installs everything on the server. It ends by itself."""
        return self._python("prefect-deploy", "-m", "deployments.bootstrap", "--wait-seconds", str(STARTS_WITHIN_S))

    def worker_command(self) -> Command:
        """Return the worker that runs flows as processes on this machine."""
        options = ("--pool", POOL, "--type", "process", "--name", "local")
        return self._python("prefect-worker", "-m", "prefect", "worker", "start", *options)

    def client(self) -> PrefectApi:
        return PrefectApi(self.access())

    async def start(self, house: Supervisor) -> None:
        """Start the server, install everything on it, and start the worker. Then runs can be asked for.

        Raises UnavailableError with the end of the log of whichever fails.
        """
        publish_url(self.state, self.url)
        async with self.client() as api:
            # The deployment imports for 3 s before it asks for the server, on the core that the server
            # leaves free.
            deployed = asyncio.create_task(house.run(self.deploy_command()))
            try:
                await house.start(self.server_command(), ready=api.is_own, ready_within_s=STARTS_WITHIN_S)
                await house.start(self.worker_command(), ready=api.has_worker)
                await deployed
            finally:
                deployed.cancel()
                await asyncio.gather(deployed, return_exceptions=True)

    def _python(self, name: str, *arguments: str) -> Command:
        return Command(name=name, argv=[sys.executable, *arguments], env=self.environment(), cwd=self.checkout)


@dataclass(frozen=True)
class RunState:
    """The state of a flow run: the kind that Prefect counts by, the name it shows, and what the flow said."""

    kind: str
    name: str
    message: str

    @property
    def terminal(self) -> bool:
        return self.kind in TERMINAL

    @property
    def completed(self) -> bool:
        return self.kind == "COMPLETED"


class PrefectApi:
    """Prefect's HTTP API, as far as a run is started and followed: `async with server.client() as api:`."""

    def __init__(self, access: PrefectAccess, *, clock: Clock | None = None) -> None:
        self._url = access.url
        self._clock = clock or SystemClock()
        self._http = access.http(REQUEST_WITHIN_S)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    async def is_ready(self) -> bool:
        """Tell whether the server answers and its database is migrated."""
        with contextlib.suppress(httpx.HTTPError):
            return (await self._http.get("/ready")).is_success
        return False

    async def is_own(self) -> bool:
        """Return whether the server is ready, refuses requests without a password, and accepts ours.

        A server of another program at the same port does one of them differently.
        """
        if not await self.is_ready():
            return False
        with contextlib.suppress(httpx.HTTPError):
            without = await self._http.get("/admin/version", auth=None)
            return without.status_code == httpx.codes.UNAUTHORIZED and (
                (await self._http.get("/admin/version")).is_success
            )
        return False

    async def has_worker(self, pool: str = POOL) -> bool:
        """Tell whether a worker of this pool is online."""
        with contextlib.suppress(httpx.HTTPError):
            answer = await self._http.post(f"/work_pools/{pool}/workers/filter", json={})
            return answer.is_success and any(worker["status"] == "ONLINE" for worker in answer.json())
        return False

    async def wait_ready(self, within_s: float = 60.0) -> None:
        """Return once the server is ready; raise UnavailableError after this time."""
        try:
            async with asyncio.timeout(within_s):
                while not await self.is_ready():
                    await self._clock.sleep(POLL_EVERY_S)
        except TimeoutError:
            raise UnavailableError(f"no Prefect server answers at {self._url} within {within_s:g} s") from None

    async def run_deployment(
        self, name: str, parameters: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> UUID:
        """Ask for a run now of the deployment `flow/deployment`, and return the run's id.

        The same idempotency key answers with the run that it made the first time. Raises StateError for a
        deployment that is not installed, UsageError for parameters its form refuses, UnavailableError when
        nobody answers.
        """
        deployment = await self._deployment(name)
        wanted = {
            "parameters": dict(parameters),
            "state": {"type": "SCHEDULED"},
            "idempotency_key": idempotency_key,
        }
        answer = await self._request("POST", f"/deployments/{deployment}/create_flow_run", json=wanted)
        if answer.status_code in (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY):
            raise UsageError(f"{name} refuses its parameters: {_detail(answer)}")
        return UUID(answer.raise_for_status().json()["id"])

    async def add_schedule(self, name: str, cron: str, zone: str, parameters: Mapping[str, Any]) -> bool:
        """Let the deployment `flow/deployment` run by itself with these parameters. False: a schedule has them already.

        Raises StateError for a deployment that is not installed, UnavailableError when nobody answers.
        """
        path = f"/deployments/{await self._deployment(name)}/schedules"
        present = (await self._request("GET", path)).raise_for_status().json()
        if any(schedule["parameters"] == parameters for schedule in present):
            return False
        wanted = {"schedule": {"cron": cron, "timezone": zone}, "active": True, "parameters": dict(parameters)}
        answer = await self._request("POST", path, json=[wanted])
        if answer.status_code in (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY):
            raise UsageError(f"{name} refuses its schedule: {_detail(answer)}")
        answer.raise_for_status()
        return True

    async def schema(self, name: str) -> dict[str, Any]:
        """Return the schema of the parameters of the deployment `flow/deployment`.

        Raises:
            StateError: It is not installed.
            UnavailableError: No server answers.
        """
        schema: dict[str, Any] = (await self._read_deployment(name))["parameter_openapi_schema"]
        return schema

    async def set_schema(self, name: str, schema: Mapping[str, Any]) -> None:
        """Replace the schema of the parameters of the deployment `flow/deployment`.

        Raises:
            StateError: It is not installed.
            UnavailableError: No server answers.
        """
        path = f"/deployments/{await self._deployment(name)}"
        answer = await self._request("PATCH", path, json={"parameter_openapi_schema": dict(schema)})
        answer.raise_for_status()

    async def _deployment(self, name: str) -> str:
        return str((await self._read_deployment(name))["id"])

    async def _read_deployment(self, name: str) -> dict[str, Any]:
        answer = await self._request("GET", f"/deployments/name/{name}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise StateError(
                f"no deployment {name} is installed", remedy="Install them: python -m deployments.bootstrap"
            )
        deployment: dict[str, Any] = answer.raise_for_status().json()
        return deployment

    async def state(self, run_id: UUID) -> RunState:
        """Return the state the run is in now."""
        answer = await self._request("GET", f"/flow_runs/{run_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise StateError(f"there is no flow run {run_id}")
        state = answer.raise_for_status().json()["state"]
        return RunState(state["type"], state["name"], state["message"] or "")

    async def states(self, run_ids: Sequence[str]) -> dict[str, RunState]:
        """Return the present states of runs by their ids. A run that the server does not have is left out.

        Raises:
            UnavailableError: No server answers.
        """
        wanted = {"flow_runs": {"id": {"any_": list(run_ids)}}}
        answer = (await self._request("POST", "/flow_runs/filter", json=wanted)).raise_for_status()
        return {
            run["id"]: RunState(state["type"], state["name"], state["message"] or "")
            for run in answer.json()
            if (state := run["state"]) is not None
        }

    async def add_log(self, run_id: str, message: str, at: datetime) -> None:
        """Add a warning to the log that the page of a run shows.

        Raises:
            UnavailableError: No server answers.
        """
        line = {"name": "postroad", "level": logging.WARNING, "message": message, "timestamp": at.isoformat()}
        await self._request("POST", "/logs/", json=[line | {"flow_run_id": run_id}])

    async def follow(self, run_id: UUID, within_s: float) -> RunState:
        """Return the run's last state; raise UnavailableError when it has not ended within this time.

        A server that does not answer meanwhile is asked again: the run goes on without it.
        """
        last: RunState | None = None
        try:
            async with asyncio.timeout(within_s):
                while True:
                    with contextlib.suppress(UnavailableError):
                        if (last := await self.state(run_id)).terminal:
                            return last
                    await self._clock.sleep(POLL_EVERY_S)
        except TimeoutError:
            seen = last.name if last else "nothing"
            raise UnavailableError(
                f"the run has not ended within {within_s:g} s; its last state is {seen}",
                where=self.url_of(run_id),
            ) from None

    def url_of(self, run_id: UUID) -> str:
        """Where a person sees the run."""
        return f"{self._url}/runs/flow-run/{run_id}"

    async def _request(self, method: str, path: str, json: Any = None) -> httpx.Response:
        """Return the answer, whatever its status below 500; raise UnavailableError otherwise, and ConfigError for 401.

        It asks again after a 503: with that a Prefect on SQLite says that another writer was first, and that
        nothing was done.
        """
        answer: httpx.Response | None = None
        try:
            async with asyncio.timeout(REQUEST_WITHIN_S):
                while True:
                    answer = await self._http.request(method, path, json=json)
                    if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                        break
                    await self._clock.sleep(POLL_EVERY_S)
        except (httpx.TransportError, TimeoutError) as error:
            raise UnavailableError(f"Prefect does not answer at {self._url}: {error!r}") from error
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise ConfigError(
                f"Prefect at {self._url} refuses the password",
                remedy=f"Set PREFECT_API_AUTH_STRING. `postroad up` keeps its password in {PASSWORD_FILE} of the "
                "state folder.",
            )
        if answer.is_server_error:
            raise UnavailableError(f"Prefect at {self._url} answers {answer.status_code}: {answer.text}")
        return answer


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("detail") or answer.text)
    except ValueError:
        return answer.text


def open_prefect(settings: Settings) -> PrefectApi:
    """Return a client of the Prefect server that commands and processes with these settings use."""
    return PrefectApi(find_prefect(settings.state_dir))
