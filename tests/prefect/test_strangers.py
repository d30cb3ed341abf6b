"""A stranger who reaches the Prefect server that `postroad up` starts runs no code by it."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import websockets
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.workers.process import ProcessWorker

from deployments.pool import ensure_pool
from postroad.local.prefect_access import PrefectAccess
from postroad.local.prefect_pool import JOB_TEMPLATE, POOL, open_fields
from postroad.local.prefect_server import PrefectServer
from tests.kit.waiting import until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(240), pytest.mark.usefixtures("prefect_client_settings")]

EVIL = "http://evil.example"


@pytest_asyncio.fixture
async def stranger(server: PrefectServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client that reaches the port and knows no password."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        yield client


@pytest_asyncio.fixture
async def deployment(http: httpx.AsyncClient) -> AsyncIterator[str]:
    """Id of a deployment whose flow does nothing."""
    flow = (await http.post("flows/", json={"name": "ticking"})).raise_for_status().json()
    wanted = {
        "name": "attacked",
        "flow_id": flow["id"],
        "entrypoint": "tests.prefect.ticking.tick",
        "work_pool_name": POOL,
    }
    made = (await http.post("deployments/", json=wanted)).raise_for_status().json()
    yield made["id"]
    (await http.delete(f"deployments/{made['id']}")).raise_for_status()


def executing(marker: Path) -> list[dict[str, Any]]:
    """Job variables that would leave a marker, had the worker heeded them; in each form that Prefect accepts."""
    (marker.parent / "sitecustomize.py").write_text(f"open({str(marker)!r}, 'w')")
    folder = str(marker.parent)
    return [
        {"command": f"touch {marker}"},
        {"env": {"PYTHONPATH": folder}},
        {"env.PYTHONPATH": folder},
        {"working_dir": folder, "env": {"PYTHONSAFEPATH": None}},
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/flow_runs/filter"),
        ("POST", "/api/deployments/filter"),
        ("GET", "/api/work_pools/postroad"),
        ("GET", "/api/variables/name/postroad_schedules"),
        ("GET", "/api/csrf-token?client=me"),
        ("POST", "/api/deployments/00000000-0000-0000-0000-000000000000/create_flow_run"),
    ],
)
async def test_a_request_without_the_password_is_refused(
    stranger: httpx.AsyncClient, http: httpx.AsyncClient, method: str, path: str
) -> None:
    # With a token that is valid, so that it is the password which is asked for.
    token = (await http.get("csrf-token", params={"client": "stranger"})).raise_for_status().json()["token"]
    headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "stranger"}
    body: dict[str, Any] | None = {} if method == "POST" else None
    for auth in (None, ("postroad", "guess"), ("", "")):
        answer = await stranger.request(method, path, json=body, headers=headers, auth=auth)
        assert answer.status_code == httpx.codes.UNAUTHORIZED


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out"])
async def test_a_websocket_without_the_password_is_closed(server: PrefectServer, path: str) -> None:
    url = f"ws://127.0.0.1:{server.port}/api/{path}"
    async with websockets.connect(url, subprotocols=[websockets.Subprotocol("prefect")]) as socket:
        await socket.send(json.dumps({"type": "auth", "token": "guess"}))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == websockets.CloseCode.POLICY_VIOLATION


async def test_another_origin_gets_no_allowance(stranger: httpx.AsyncClient, server: PrefectServer) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for origin in (EVIL, f"http://127.0.0.1.evil.example:{server.port}", "null"):
        before = await stranger.options("/api/flow_runs/filter", headers={"Origin": origin, **asked})
        assert before.status_code == httpx.codes.BAD_REQUEST
        assert "access-control-allow-origin" not in before.headers
        answer = await stranger.get("/api/health", headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers
    own = await stranger.options("/api/flow_runs/filter", headers={"Origin": server.url, **asked})
    assert own.headers["access-control-allow-origin"] == server.url


async def test_another_host_name_is_refused(server: PrefectServer) -> None:
    """A page whose name resolves to this machine reads neither the API nor the UI."""
    password = server.access().password or ""
    user, _, secret = password.partition(":")
    async with httpx.AsyncClient(base_url=server.url, auth=(user, secret), timeout=60) as client:
        for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example"):
            for path in ("/", "/ui-settings", "/api/health", "/api/admin/version"):
                answer = await client.get(path, headers={"Host": host})
                assert answer.status_code == httpx.codes.BAD_REQUEST, path
        assert (await client.get("/api/admin/version")).is_success
    with pytest.raises(websockets.InvalidStatus):
        async with websockets.connect(
            f"ws://127.0.0.1:{server.port}/api/events/in", additional_headers={"Host": "evil.example"}
        ):
            pass


async def test_a_change_without_a_token_is_refused(server: PrefectServer) -> None:
    """A browser that holds the password may be made to send it, but never the token."""
    user, _, secret = (server.access().password or "").partition(":")
    async with httpx.AsyncClient(base_url=server.api_url, auth=(user, secret), timeout=60) as client:
        answer = await client.post("/variables/", json={"name": "forged", "value": 1})
        assert answer.status_code == httpx.codes.FORBIDDEN
        assert "CSRF" in answer.text


async def test_a_token_that_expired_is_fetched_again(server: PrefectServer) -> None:
    tokens: list[str] = []

    async def replace_first(request: httpx.Request) -> None:
        if "Prefect-Csrf-Token" in request.headers:
            tokens.append(request.headers["Prefect-Csrf-Token"])
            if len(tokens) == 1:
                request.headers["Prefect-Csrf-Token"] = "old"

    async with server.access().http(60) as client:
        client.event_hooks["request"].append(replace_first)
        assert (await client.post("/variables/filter", json={})).is_success
    assert len(tokens) == 2
    assert tokens[0] != tokens[1]


async def test_job_variables_that_execute_are_refused(http: httpx.AsyncClient, deployment: str, tmp_path: Path) -> None:
    flow = (await http.get(f"deployments/{deployment}")).raise_for_status().json()["flow_id"]
    for variables in executing(tmp_path / "executed"):
        on_run = await http.post(f"deployments/{deployment}/create_flow_run", json={"job_variables": variables})
        fresh = {"name": "fresh", "flow_id": flow, "work_pool_name": POOL, "job_variables": variables}
        on_deployment = await http.post("deployments/", json=fresh)
        action = {
            "type": "run-deployment",
            "source": "selected",
            "deployment_id": deployment,
            "job_variables": variables,
        }
        trigger = {"type": "event", "posture": "Reactive", "expect": ["x"], "threshold": 1, "within": 0}
        automation = {"name": "attack", "trigger": trigger, "actions": [action]}
        on_automation = await http.post("automations/", json=automation)
        answers = (on_run, on_deployment, on_automation)
        assert [answer.status_code for answer in answers] == [httpx.codes.UNPROCESSABLE_ENTITY] * 3, variables


async def test_job_variables_from_before_the_upgrade_are_not_executed(
    http: httpx.AsyncClient, deployment: str, tmp_path: Path
) -> None:
    """Runs and a deployment that an open pool accepted: the bootstrap closes the pool, and the runs complete."""
    marker = tmp_path / "executed"
    default = WorkPoolUpdate(base_job_template=ProcessWorker.get_default_base_job_template())
    run_ids = []
    async with get_client() as client:
        await client.update_work_pool(POOL, default)
        later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2999-01-01T00:00:00Z"}}
        for variables in executing(marker):
            wanted = {"state": later, "job_variables": variables}
            made = await http.post(f"deployments/{deployment}/create_flow_run", json=wanted)
            run_ids.append(made.raise_for_status().json()["id"])
        on_deployment = {"job_variables": {"command": f"touch {marker}", "working_dir": str(tmp_path)}}
        (await http.patch(f"deployments/{deployment}", json=on_deployment)).raise_for_status()
        await ensure_pool(client, POOL)
        pool = await client.read_work_pool(POOL)
        assert pool.base_job_template == JOB_TEMPLATE
    for run_id in run_ids:
        now = {"state": {"type": "SCHEDULED"}, "force": True}
        (await http.post(f"flow_runs/{run_id}/set_state", json=now)).raise_for_status()

    async def ended() -> list[str] | None:
        wanted = {"flow_runs": {"id": {"any_": run_ids}}}
        runs = (await http.post("flow_runs/filter", json=wanted)).raise_for_status().json()
        states = [run["state_type"] for run in runs]
        return states if set(states) <= {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None

    assert await until(ended, within_s=180, every_s=0.5) == ["COMPLETED"] * len(run_ids)
    assert not marker.exists()


def test_prefects_own_template_leaves_the_fields_open() -> None:
    default = ProcessWorker.get_default_base_job_template()
    assert open_fields(default) == ["command", "env", "working_dir"]
    assert open_fields({}) == ["command", "env", "working_dir"]
    assert open_fields(JOB_TEMPLATE) == []
    # Prefect merges a run's `env` into a mapping, whether or not there is such a variable.
    with_env = {**JOB_TEMPLATE, "job_configuration": {**JOB_TEMPLATE["job_configuration"], "env": {}}}
    assert open_fields(with_env) == ["env"]
    renamed = {**JOB_TEMPLATE, "job_configuration": {"command": "sh -c {{ anything }}"}}
    assert open_fields(renamed) == ["command"]


def test_the_password_is_in_a_file_of_its_owner_and_nowhere_else(server: PrefectServer) -> None:
    password = server.access().password or ""
    assert len(password) > 40
    assert stat.S_IMODE(server.password_file.stat().st_mode) == 0o600
    _, _, secret = password.partition(":")
    arguments = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert secret not in arguments
    for log in (server.state / "logs").iterdir():
        assert secret not in log.read_text(errors="replace"), log
    assert secret not in repr(server.access()) + repr(PrefectAccess(url=server.url, password=password))
