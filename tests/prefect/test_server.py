"""A Prefect server on SQLite lets writers wait for each other, and replies meanwhile."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from postroad.local.prefect_server import PrefectServer

CHECKOUT = Path(__file__).parents[2]

# As in Prefect's server: one connection writes until the event loop lets it commit, another waits for it in a thread,
# and a cursor of the second, which still has rows to give, has ended in a cycle. How long does the loop pause?
DEADLOCK = """
import asyncio, gc, json, sqlite3, sys, threading, time

async def main(path):
    if sys.argv[2] == "thread":
        from deployments.server import collect_in_a_thread
        collect_in_a_thread()
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("CREATE TABLE t (n)")
    waiting = sqlite3.connect(path, isolation_level=None, timeout=4.0, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    cursor = waiting.execute("SELECT 1 UNION ALL SELECT 2")
    cursor.fetchone()
    cycle = [cursor]
    cycle.append(cycle)
    write = asyncio.create_task(asyncio.to_thread(waiting.execute, "INSERT INTO t VALUES (1)"))
    await asyncio.sleep(0.2)
    del cursor, cycle
    longest_s, commit_at = 0.0, time.monotonic() + 1.5
    while time.monotonic() < commit_at:
        began = time.monotonic()
        garbage = [[] for _ in range(20_000)]
        await asyncio.sleep(0.01)
        longest_s = max(longest_s, time.monotonic() - began)
    writer.execute("COMMIT")
    try:
        await write
        written = True
    except sqlite3.OperationalError:
        written = False
    print(json.dumps({"longest_s": longest_s, "written": written}))

asyncio.run(main(sys.argv[1]))
"""


def longest_pause(path: Path, collects: str) -> dict[str, float]:
    result = subprocess.run(
        [sys.executable, "-c", DEADLOCK, str(path), collects],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: dict[str, float] = json.loads(result.stdout)
    return found


def test_a_collector_of_its_own_lets_the_event_loop_go_on(tmp_path: Path) -> None:
    found = longest_pause(tmp_path / "a.db", "thread")
    assert found["longest_s"] < 1
    assert found["written"]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the collector of 3.14 may come by later than this test waits")
def test_a_collector_in_the_event_loop_stops_it_until_the_wait_is_given_up(tmp_path: Path) -> None:
    """The reason for `deployments.server`: if this test fails, remove that."""
    found = longest_pause(tmp_path / "a.db", "anywhere")
    assert found["longest_s"] > 2
    assert not found["written"]


@pytest.mark.prefect
@pytest.mark.timeout(240)
async def test_writers_wait_for_each_other(server: PrefectServer) -> None:
    """An unchanged Prefect replies 503 to most of these."""
    async with server.access().http(60) as http:
        flow = (await http.post("/flows/", json={"name": "writers"})).json()["id"]

        async def write() -> list[int]:
            codes = []
            for _ in range(10):
                run = await http.post("/flow_runs/", json={"flow_id": flow, "state": {"type": "PENDING"}})
                end = {"state": {"type": "COMPLETED"}, "force": True}
                ended = await http.post(f"/flow_runs/{run.json()['id']}/set_state", json=end)
                codes += [run.status_code, ended.status_code]
            return codes

        codes = await asyncio.gather(*(write() for _ in range(12)))
    assert {code for of_writer in codes for code in of_writer} == {httpx.codes.CREATED}
