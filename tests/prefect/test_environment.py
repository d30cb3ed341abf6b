"""The environment of the child processes of the local stack."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from postroad.errors import UnavailableError
from postroad.local.prefect_access import PrefectAccess
from postroad.local.prefect_api import PrefectApi
from postroad.local.prefect_server import PrefectServer, choose_port


@pytest.fixture
def server(tmp_path: Path) -> PrefectServer:
    return PrefectServer(state=tmp_path / "state", files=tmp_path / "checkout", port=4321)


def test_settings_and_keys_of_another_prefect_are_not_inherited(server: PrefectServer) -> None:
    base = {"PREFECT_API_KEY": "pnu_secret", "PREFECT_PROFILE": "cloud", "POSTROAD_ROOT": "/srv"}
    environment = server.environment(base)
    assert "PREFECT_API_KEY" not in environment
    assert "PREFECT_PROFILE" not in environment
    assert environment["POSTROAD_ROOT"] == "/srv"
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"


def test_everything_prefect_writes_is_inside_the_state_folder(server: PrefectServer, tmp_path: Path) -> None:
    environment = server.environment({})
    assert environment["PREFECT_HOME"] == str(tmp_path / "state" / "prefect")
    database = f"sqlite+aiosqlite:///{tmp_path}/state/prefect/prefect.db"
    assert environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == database


def test_analytics_are_disabled(server: PrefectServer) -> None:
    environment = server.environment({"DO_NOT_TRACK": "0", "PREFECT_SERVER_ANALYTICS_ENABLED": "true"})
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"


async def test_a_flow_finds_our_flows_and_our_python_from_any_folder(tmp_path: Path) -> None:
    """The worker runs `python` in a temporary folder, with this environment."""
    checkout = Path(__file__).parents[2]
    server = PrefectServer(state=tmp_path, files=checkout, port=4321)
    program = await asyncio.create_subprocess_exec(
        *("python", "-c", "import sys, flows, tasks, postroad; print(sys.prefix, flows.__path__[0])"),
        cwd=tmp_path,
        env=server.environment({"PATH": os.defpath}),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await program.communicate()
    assert output.decode().split() == [sys.prefix, str(checkout / "flows")]


def test_a_port_that_is_taken_is_not_chosen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert choose_port(port) != port
    assert choose_port(port) == port


async def test_a_server_that_does_not_answer_is_an_error_within_the_time() -> None:
    async with PrefectApi(PrefectAccess(url=f"http://127.0.0.1:{choose_port(0)}")) as api:
        with pytest.raises(UnavailableError, match=r"no Prefect server answers at .* within 0\.3 s"):
            await api.wait_ready(within_s=0.3)
        with pytest.raises(UnavailableError, match="Prefect does not answer"):
            await api.run_deployment("campaign/campaign", {})
