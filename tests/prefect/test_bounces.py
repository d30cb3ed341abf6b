"""The flows `bounces` and `dead-letters`, run by a worker on parts of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from postroad.app.context import open_context
from postroad.bounce.intake import BOUNCE_QUEUE, LANE
from postroad.embedded import stop_redis
from postroad.local.prefect_pool import COMMAND
from postroad.queue import Dead, Job
from postroad.settings import Settings
from postroad.store.cohort import CohortEvidence, CohortPause, add_pause
from postroad.store.engine import write
from tests.bounce import mails
from tests.kit.waiting import until
from tests.store.rows import NOW, add_campaign

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(300), pytest.mark.usefixtures("open_pool")]


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """A postroad.toml with a Maildir as its only source."""
    for name in ("new", "cur", "tmp"):
        (tmp_path / "box" / name).mkdir(parents=True)
    (tmp_path / "postroad.toml").write_text('[bounce.sources.box]\nkind = "maildir"\npath = "box"\n')
    yield tmp_path / "postroad.toml"
    stop_redis(tmp_path / ".postroad")


async def with_own_settings(http: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """The deployment of this name, again in the pool whose runs may have settings of their own."""
    original = (await http.get(f"deployments/name/{name}/{name}")).raise_for_status().json()
    same = ("flow_id", "entrypoint", "pull_steps", "parameters", "parameter_openapi_schema")
    own = {"name": "own-settings", "work_pool_name": "own-settings", "job_variables": {"command": COMMAND}}
    wanted = {key: original[key] for key in same} | own
    made: dict[str, Any] = (await http.post("deployments/", json=wanted)).raise_for_status().json()
    return made


async def start(http: httpx.AsyncClient, name: str, config: Path, **parameters: Any) -> str:
    deployment = await with_own_settings(http, name)
    made = await http.post(
        f"deployments/{deployment['id']}/create_flow_run",
        json={"parameters": parameters, "job_variables": {"env": {"POSTROAD_CONFIG": str(config)}}},
    )
    run_id: str = made.raise_for_status().json()["id"]
    return run_id


async def state(http: httpx.AsyncClient, run_id: str, *types: str) -> dict[str, Any]:
    """The state of a run, once it is one of these."""

    found: dict[str, Any] = {}

    async def reached() -> bool:
        nonlocal found
        found = (await http.get(f"flow_runs/{run_id}")).raise_for_status().json()["state"]
        return found["type"] in types

    try:
        await until(reached, within_s=240, every_s=0.5)
    except TimeoutError:
        pytest.fail(f"the run is in {found}")
    return found


async def fetched(http: httpx.AsyncClient, config: Path) -> dict[str, Any]:
    """The last state of a run of `bounces`. While one of its schedule is under way, another is cancelled at once."""
    while True:
        run_id = await start(http, "bounces", config)
        ended = await state(http, run_id, "COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        if ended["type"] != "CANCELLED":
            return ended
        await asyncio.sleep(1)


async def tables(http: httpx.AsyncClient, key: str) -> list[dict[str, Any]]:
    found = await http.post("artifacts/filter", json={"artifacts": {"key": {"any_": [key]}}})
    artifacts: list[dict[str, Any]] = found.raise_for_status().json()
    return artifacts


async def kill_a_job(config: Path, name: str, cause: str) -> None:
    async with open_context(Settings.load(config)) as context:
        queue = await context.queue(BOUNCE_QUEUE)
        await queue.enqueue(LANE, [Job(id=name, payload=b"")])
        [job] = (await queue.claim("w", want=1, lease_ms=10_000, nonce=name)).jobs
        await queue.settle("w", [(job, Dead(cause=cause, error=f"{name} failed"))])


async def counts(config: Path) -> tuple[int, int]:
    """Jobs queued and dead."""
    async with open_context(Settings.load(config)) as context:
        stats = await (await context.queue(BOUNCE_QUEUE)).stats()
        return stats.queued, stats.dead


async def test_what_is_in_a_maildir_is_fetched(http: httpx.AsyncClient, config: Path) -> None:
    (config.parent / "box" / "new" / "1.mx").write_bytes(mails.UNKNOWN)
    ended = await fetched(http, config)
    assert (ended["type"], ended["message"]) == ("COMPLETED", "1 mail from 1 source")
    assert [file.name for file in (config.parent / "box" / "cur").iterdir()] == ["1.mx:2,S"]
    assert await counts(config) == (1, 0)
    assert await tables(http, "bounces")


@pytest.mark.parametrize(("send_again", "left"), [(True, (1, 2)), (False, (0, 3))])
async def test_dead_letters_wait_for_an_approval(
    http: httpx.AsyncClient, config: Path, send_again: bool, left: tuple[int, int]
) -> None:
    await kill_a_job(config, "one", "a server is unavailable")
    await kill_a_job(config, "two", "a mistake")
    params = {"queue": BOUNCE_QUEUE, "cause": "a server is unavailable"}
    run_id = await start(http, "dead-letters", config, params=params)
    paused = await state(http, run_id, "PAUSED", "COMPLETED", "FAILED", "CRASHED")
    assert paused["type"] == "PAUSED", paused
    assert datetime.fromisoformat(paused["state_details"]["pause_timeout"]) > datetime.now(UTC) + timedelta(hours=23)
    assert await counts(config) == (0, 2)
    [table, *_] = await tables(http, "dead-letters-bounce-process")
    assert "| 1 |" in table["data"]
    assert "one failed" in table["data"]

    await kill_a_job(config, "late", "a server is unavailable")  # The preview did not list it.

    async def accepted() -> bool:
        # Prefect keeps the form's schema a moment after the run has paused, and refuses an answer until then.
        answer = await http.post(f"flow_runs/{run_id}/resume", json={"run_input": {"send_again": send_again}})
        return bool(answer.raise_for_status().json()["status"] == "ACCEPT")

    await until(accepted, within_s=60, every_s=0.5)
    ended = await state(http, run_id, "COMPLETED", "FAILED", "CRASHED")
    assert ended["type"] == "COMPLETED", ended
    assert await counts(config) == left


async def test_without_dead_letters_no_approval_is_needed(http: httpx.AsyncClient, config: Path) -> None:
    run_id = await start(http, "dead-letters", config, params={"queue": BOUNCE_QUEUE})
    ended = await state(http, run_id, "PAUSED", "COMPLETED", "FAILED", "CRASHED")
    assert ended["type"] == "COMPLETED", ended


async def test_a_paused_list_is_reported_once(http: httpx.AsyncClient, config: Path) -> None:
    async with open_context(Settings.load(config)) as context:
        with write(context.engine) as connection:
            _, (step,) = add_campaign(connection, name="spring")
            pause = CohortPause(
                step_id=step,
                source="fair.csv",
                provider="google",
                evidence=CohortEvidence.HARD_BOUNCES,
                reason="10 hard bounces of 50",
                at=NOW,
            )
            add_pause(connection, pause)
    for message in ("0 mails from 1 source; 1 list is paused", "0 mails from 1 source"):
        ended = await fetched(http, config)
        assert (ended["type"], ended["message"]) == ("COMPLETED", message)

    async def pauses() -> list[dict[str, Any]]:
        wanted = {"filter": {"event": {"name": ["postroad.cohort.paused"]}}}
        found: list[dict[str, Any]] = (
            (await http.post("events/filter", json=wanted)).raise_for_status().json()["events"]
        )
        return [event for event in found if event["payload"].get("source") == "fair.csv"]  # Others emit it, too.

    [event] = await until(pauses, within_s=60, every_s=0.5)
    assert event["payload"]["reason"] == "10 hard bounces of 50"
