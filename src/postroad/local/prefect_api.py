"""Client of Prefect's HTTP API: what starting, following and scheduling runs needs.

It does not import Prefect, which takes more than a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import httpx

from postroad.clock import Clock, SystemClock
from postroad.errors import ConfigError, StateError, UnavailableError, UsageError
from postroad.local.flow_run import FlowRun, RunState
from postroad.local.prefect_access import PASSWORD_FILE, PrefectAccess, find_prefect
from postroad.local.prefect_pool import POOL
from postroad.settings import Settings

POLL_EVERY_S: Final = 0.25
REQUEST_WITHIN_S: Final = 60.0
"""A Prefect on SQLite may wait that long for its own writers when the disk is busy."""


class PrefectApi:
    """A client of Prefect's HTTP API: `async with server.client() as api:`."""

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
        """Return whether the server answers and its database is migrated."""
        with contextlib.suppress(httpx.HTTPError):
            return (await self._http.get("/ready")).is_success
        return False

    async def is_own(self) -> bool:
        """Return whether the server is ready, refuses requests without a password, and accepts ours.

        A server of another program at the same port fails one of these checks.
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
        """Return whether a worker of this pool is online."""
        with contextlib.suppress(httpx.HTTPError):
            answer = await self._http.post(f"/work_pools/{pool}/workers/filter", json={})
            return answer.is_success and any(worker["status"] == "ONLINE" for worker in answer.json())
        return False

    async def wait_ready(self, within_s: float = 60.0) -> None:
        """Return once the server is ready.

        Args:
            within_s: Seconds to wait at most.

        Raises:
            UnavailableError: The server is not ready within this time.
        """
        try:
            async with asyncio.timeout(within_s):
                while not await self.is_ready():
                    await self._clock.sleep(POLL_EVERY_S)
        except TimeoutError:
            raise UnavailableError(f"no Prefect server answers at {self._url} within {within_s:g} s") from None

    async def run_deployment(
        self, name: str, parameters: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> UUID:
        """Start a run of the deployment `flow/deployment` now.

        Args:
            name: The deployment, as `flow/deployment`.
            parameters: The parameters of the run.
            idempotency_key: A second call with the same key returns the run of the first.

        Returns:
            The id of the run.

        Raises:
            StateError: The deployment is not installed.
            UsageError: The deployment's form refuses the parameters.
            UnavailableError: No server answers.
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
        """Add a schedule to the deployment `flow/deployment`, unless one has the same parameters.

        Args:
            name: The deployment, as `flow/deployment`.
            cron: When it runs.
            zone: The time zone of `cron`.
            parameters: The parameters of its runs.

        Returns:
            Whether the schedule was added.

        Raises:
            StateError: The deployment is not installed.
            UsageError: Prefect refuses the schedule.
            UnavailableError: No server answers.
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
            StateError: The deployment is not installed.
            UnavailableError: No server answers.
        """
        schema: dict[str, Any] = (await self._read_deployment(name))["parameter_openapi_schema"]
        return schema

    async def set_schema(self, name: str, schema: Mapping[str, Any]) -> None:
        """Replace the schema of the parameters of the deployment `flow/deployment`.

        Raises:
            StateError: The deployment is not installed.
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
        """Return the present state of a run.

        Raises:
            StateError: There is no such run.
            UnavailableError: No server answers.
        """
        answer = await self._request("GET", f"/flow_runs/{run_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise StateError(f"there is no flow run {run_id}", missing=True)
        return RunState.of(answer.raise_for_status().json()["state"])

    async def states(self, run_ids: Sequence[str]) -> dict[str, RunState]:
        """Return the present states of runs by their ids, without runs that the server does not have.

        Raises:
            UnavailableError: No server answers.
        """
        runs = await self.find_runs({"flow_runs": {"id": {"any_": list(run_ids)}}})
        return {run.run_id: run.state for run in runs}

    async def find_runs(self, wanted: Mapping[str, Any]) -> list[FlowRun]:
        """Return the runs that a filter of Prefect's API matches, at most 200. A run without a state is left out.

        Raises:
            UnavailableError: No server answers.
        """
        answer = await self._request("POST", "/flow_runs/filter", json=dict(wanted))
        return [FlowRun.of(run) for run in answer.raise_for_status().json() if run["state"] is not None]

    async def add_log(self, run_id: str, message: str, at: datetime) -> None:
        """Add a warning to the log that the page of a run shows.

        Raises:
            UnavailableError: No server answers.
        """
        line = {"name": "postroad", "level": logging.WARNING, "message": message, "timestamp": at.isoformat()}
        await self._request("POST", "/logs/", json=[line | {"flow_run_id": run_id}])

    async def resume(self, run_id: UUID, answer: Mapping[str, Any]) -> bool:
        """Resume a run that waits for a form, with the answer.

        Returns:
            False if it does not wait, or not yet.

        Raises:
            UsageError: There is no such run, or its form refuses the answer.
            UnavailableError: No server answers.
        """
        reply = await self._request("POST", f"/flow_runs/{run_id}/resume", json={"run_input": dict(answer)})
        if reply.is_client_error:
            raise UsageError(f"the run {run_id} refuses the answer: {_detail(reply)}")
        return bool(reply.raise_for_status().json()["status"] == "ACCEPT")

    async def follow(self, run_id: UUID, within_s: float) -> RunState:
        """Wait until a run has ended.

        While the server does not answer, the request is repeated: the run itself does not depend on it.

        Args:
            run_id: The run.
            within_s: Seconds to wait at most.

        Returns:
            The last state of the run.

        Raises:
            UnavailableError: The run has not ended within this time.
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
        """Return the address of the run's page in Prefect's UI."""
        return f"{self._url}/runs/flow-run/{run_id}"

    async def _request(self, method: str, path: str, json: Any = None) -> httpx.Response:
        """Send a request, again after each response 503.

        Prefect on SQLite replies 503 when another writer was first, and then has done nothing.

        Returns:
            The response, whatever its status below 500 except 401.

        Raises:
            ConfigError: The server refuses the password.
            UnavailableError: No server answers, or it fails.
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
            raise UnavailableError(
                f"Prefect does not answer at {self._url}: {_reason(error)}",
                remedy="Start it: `postroad up` runs one on this machine. PREFECT_API_URL names another server.",
            ) from error
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise ConfigError(
                f"Prefect at {self._url} refuses the password",
                remedy=f"Set PREFECT_API_AUTH_STRING. `postroad up` keeps its password in {PASSWORD_FILE} of the "
                "state folder.",
            )
        if answer.is_server_error:
            raise UnavailableError(f"Prefect at {self._url} answers {answer.status_code}: {answer.text}")
        return answer


def _reason(error: Exception) -> str:
    match error:
        case httpx.ConnectError():
            return "the connection is refused, or the host is unknown"
        case TimeoutError() | httpx.TimeoutException():
            return f"no response within {REQUEST_WITHIN_S:g} s"
        case _:
            return "the connection was closed before the response"


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("detail") or answer.text)
    except ValueError:
        return answer.text


def open_prefect(settings: Settings) -> PrefectApi:
    """Return a client of the Prefect server that these settings name."""
    return PrefectApi(find_prefect(settings.state_dir))
