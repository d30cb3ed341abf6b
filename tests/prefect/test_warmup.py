"""The warmup of a sender through a real Prefect server: one day, decided once, and explained."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from deployments.bootstrap import bootstrap
from deployments.spec import read as read_spec
from postroad.clock import SystemClock
from postroad.local.prefect_api import PrefectApi
from postroad.local.prefect_server import PrefectServer
from postroad.store import migrate
from postroad.store.engine import open_engine, read, sqlite_url
from tests.warmup.conftest import SETTINGS, Mail

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(240), pytest.mark.usefixtures("prefect_client_settings")]

CHECKOUT = Path(__file__).parents[2]
WHO = {"params": {"sender": "news"}}


async def test_a_senders_schedule_is_made_once_and_outlives_the_bootstrap(
    api: PrefectApi, http: httpx.AsyncClient
) -> None:
    assert await api.add_schedule("warmup/warmup", "20 4 * * *", "Europe/Berlin", WHO)
    await bootstrap(read_spec(CHECKOUT / "prefect.yaml"))
    assert not await api.add_schedule("warmup/warmup", "20 4 * * *", "Europe/Berlin", WHO)
    deployment = (await http.get("deployments/name/warmup/warmup")).raise_for_status().json()
    [schedule] = deployment["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("20 4 * * *", "Europe/Berlin")
    assert (schedule["active"], schedule["parameters"]) == (True, WHO)


RUN_TWICE = """
import asyncio
from flows.params import WarmupParams
from flows.warmup import warmup
async def main():
    for _ in range(2):
        state = await warmup(WarmupParams(sender="news"), return_state=True)
        print(state.name, state.message)
asyncio.run(main())
"""


async def run_twice(folder: Path, server: PrefectServer, redis_url: str) -> list[str]:
    """Run the flow twice on the parts of a folder. Returns the message of each run."""
    environment = server.environment() | {
        "POSTROAD_CONFIG": str(folder / "postroad.toml"),
        "POSTROAD_STATE_DIR": str(folder / ".postroad"),
        "POSTROAD_REDIS_URL": redis_url,
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", RUN_TWICE],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


async def test_a_run_decides_the_day_sets_the_gates_and_says_why(
    tmp_path: Path, server: PrefectServer, redis_url: str, http: httpx.AsyncClient
) -> None:
    (tmp_path / "postroad.toml").write_text(SETTINGS)
    engine = open_engine(sqlite_url(tmp_path / ".postroad"))
    migrate.upgrade(engine)
    Mail(engine).accepted(SystemClock().now() - timedelta(days=1), 50)
    engine.dispose()
    first, again = await run_twice(tmp_path, server, redis_url)
    assert first.startswith("Completed 2 caps hold today, 2 decided now; ")
    assert again == "Completed 2 caps hold today, 0 decided now; 0 gates changed"
    found = (await http.post("artifacts/latest/filter", json={"artifacts": {"key": {"any_": ["warmup-news"]}}})).json()
    [artifact] = found
    row = "| news@example.com | google | 74 | 74 | 0 | 0 | grow | 50 of 50 delivered the day before |"
    assert row in artifact["data"]


SEEDS = """
name: seeds
sender: news
audience: {name: seed-list, file: seeds.csv}
steps:
  - {email: one, subject: First, text: seed.txt}
"""


async def test_a_run_plans_the_days_mail_to_the_seed_list_once(
    tmp_path: Path, server: PrefectServer, redis_url: str
) -> None:
    seeds = '[senders.news.warmup.seeds]\ncampaign = "seeds.yaml"\npermission = "owned"\n'
    (tmp_path / "postroad.toml").write_text(f'public_url = "https://mail.example.com"\n{SETTINGS}{seeds}')
    (tmp_path / "seeds.yaml").write_text(SEEDS)
    (tmp_path / "seeds.csv").write_text("email\nada@gmail.com\nbob@gmail.com\neve@own.example\n")
    (tmp_path / "seed.txt").write_text("Is it there?\n{{ unsubscribe_url }}\n{{ postal_address }}\n")
    engine = open_engine(sqlite_url(tmp_path / ".postroad"))
    migrate.upgrade(engine)
    first, again = await run_twice(tmp_path, server, redis_url)
    # How many depends on how much of the day's hours is left.
    said = re.search(r"; (\d) messages today to 3 of its seed list \(owned\)$", first)
    assert said is not None
    assert again.endswith(said[0])
    with read(engine) as connection:
        [(state, warmup)] = connection.execute(sa.text("SELECT state, warmup FROM campaign")).all()
        touches = connection.execute(sa.text("SELECT count(*) FROM touch")).scalar_one()
    engine.dispose()
    assert (state, bool(warmup), touches) == ("running", True, int(said[1]))
