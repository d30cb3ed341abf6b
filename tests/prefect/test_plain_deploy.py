"""`prefect deploy --all` on a fresh server, with no bootstrap, is enough for runs to complete."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from deployments.pool import is_deploy
from postroad.embedded import stop_redis
from postroad.local.prefect_api import PrefectApi
from postroad.local.prefect_pool import JOB_TEMPLATE, POOL
from postroad.local.processes import Command, Supervisor
from tasks.policy import LIMITS
from tests.cli.conftest import SETTINGS
from tests.prefect.conftest import CHECKOUT, StockServer

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(300)]


async def limits(http: httpx.AsyncClient) -> dict[str, int]:
    """The limits of ours that the server has. Those of deployments are Prefect's own."""
    found = (await http.post("/v2/concurrency_limits/filter", json={})).raise_for_status().json()
    return {limit["name"]: limit["limit"] for limit in found if limit["name"] in {one.name for one in LIMITS}}


async def test_a_plain_deploy_is_enough(stock: StockServer, tmp_path: Path) -> None:
    (tmp_path / "postroad.toml").write_text(SETTINGS.replace("ada@example.com", "ada@postroad-test.org"))
    environment = stock.environment | {"POSTROAD_CONFIG": str(tmp_path / "postroad.toml")}
    done = await asyncio.to_thread(
        lambda: subprocess.run(
            [str(Path(sys.executable).parent / "prefect"), "deploy", "--all"],
            cwd=CHECKOUT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    )
    assert done.returncode == 0, done.stdout + done.stderr
    async with stock.access.http(60) as http, PrefectApi(stock.access) as api:
        pool = (await http.get(f"/work_pools/{POOL}")).raise_for_status().json()
        assert pool["base_job_template"] == JOB_TEMPLATE
        assert await limits(http) == {}
        argv = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        worker = Command(name="worker", argv=argv, env=environment, cwd=CHECKOUT)
        try:
            async with Supervisor(tmp_path) as workers:
                await workers.start(worker, ready=api.has_worker)
                run_id = await api.run_deployment("dns-health/dns-health", {})
                state = await api.follow(run_id, within_s=200)
        finally:
            stop_redis(tmp_path / ".postroad")
        assert "1 sender checked" in state.message
        assert await limits(http) == {"dns-check": 10}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/usr/bin/prefect", "deploy", "--all"], True),
        (["/x/prefect/__main__.py", "--no-prompt", "deploy"], True),
        (["/usr/bin/prefect", "worker", "start"], False),
        (["/x/deployments/bootstrap.py"], False),
        (["-m", "deploy"], False),
        ([], False),
    ],
)
def test_only_prefect_deploy_creates_the_pool_on_import(arguments: list[str], expected: bool) -> None:
    assert is_deploy(arguments) is expected
