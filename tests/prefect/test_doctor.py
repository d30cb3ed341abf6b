"""`postroad doctor` says whether strangers can use the Prefect server that it finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.workers.process import ProcessWorker

from deployments.pool import ensure_pool
from postroad.doctor.prefect import check_growth, check_pool, check_prefect, check_protection
from postroad.local.prefect_access import PrefectAccess, find_prefect, forget_url, publish_url
from postroad.local.prefect_pool import POOL
from postroad.local.prefect_server import PrefectServer
from postroad.queue import Health
from tests.prefect.conftest import StockServer

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(240)]


async def test_our_server_keeps_strangers_out(server: PrefectServer) -> None:
    for look in (check_prefect, check_protection, check_pool):
        [check] = await look(server.access())
        assert check.health is Health.OK, check


async def test_a_server_without_a_password_is_red(stock: StockServer) -> None:
    [check] = await check_protection(stock.access)
    assert check.health is Health.FAIL
    assert "without a password" in check.seen
    assert "PREFECT_SERVER_API_AUTH_STRING" in check.remedy


async def test_a_database_that_grows_for_ever_is_yellow(
    stock: StockServer, server: PrefectServer, tmp_path: Path
) -> None:
    [check] = await check_growth(stock.access, tmp_path / "prefect.db")
    assert check.health is Health.WARN
    assert "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED=events,flow_runs" in check.remedy
    large = tmp_path / "large.db"
    with large.open("wb") as file:
        file.truncate(5 << 30)  # It takes no space.
    for database, health in ((server.home / "prefect.db", Health.OK), (large, Health.WARN)):
        [check] = await check_growth(server.access(), database)
        assert check.health is health, check


async def test_a_wrong_password_is_red(server: PrefectServer) -> None:
    [check] = await check_prefect(PrefectAccess(url=server.url, password="postroad:guess"))
    assert check.health is Health.FAIL
    assert "PREFECT_API_AUTH_STRING" in check.remedy


@pytest.mark.usefixtures("prefect_client_settings")
async def test_an_open_job_template_is_yellow(server: PrefectServer) -> None:
    async with get_client() as client:
        default = WorkPoolUpdate(base_job_template=ProcessWorker.get_default_base_job_template())
        await client.update_work_pool(POOL, default)
        try:
            [check] = await check_pool(server.access())
        finally:
            await ensure_pool(client, POOL)
    assert check.health is Health.WARN
    assert "command, env, working_dir" in check.seen


def test_the_password_of_the_state_folder_goes_to_its_own_server_alone(
    server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    for url in (None, server.api_url, f"http://localhost:{server.port}/api"):
        if url is None:
            monkeypatch.delenv("PREFECT_API_URL", raising=False)
        else:
            monkeypatch.setenv("PREFECT_API_URL", url)
        assert find_prefect(server.state).password == server.access().password
    for url in ("http://prefect.example/api", f"http://127.0.0.1:{server.port + 1}/api"):
        monkeypatch.setenv("PREFECT_API_URL", url)
        assert find_prefect(server.state).password is None
    monkeypatch.setenv("PREFECT_API_URL", server.api_url)
    try:
        forget_url(server.state)  # It stopped: another user may listen there.
        assert find_prefect(server.state).password is None
    finally:
        publish_url(server.state, server.url)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "named:secret")
    assert find_prefect(server.state).password == "named:secret"
