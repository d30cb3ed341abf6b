"""The flow, as a process of its own, on a real Prefect server: what it shows, and whom it holds back."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from postroad.delivery.job import SEND_QUEUE
from postroad.embedded import ensure_redis, stop_redis
from postroad.gates.name import GateName
from postroad.local.prefect_server import PrefectServer
from postroad.queue import Queue
from postroad.store.engine import open_engine, read, sqlite_url
from tests.dns.domain import GOOD, zone_with
from tests.dns.nameserver import Nameserver
from tests.kit.waiting import until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(240)]

RUN = """
import asyncio
from flows.dns_health import dns_health
print(asyncio.run(dns_health(return_state=True)).message)
"""
SENDER = "news@acme.dev"


async def run_flow(server: PrefectServer, config: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN),
        env=server.environment()
        | {"POSTROAD_CONFIG": str(config), "POSTROAD_STATE_DIR": str(config.parent / ".postroad")},
        cwd=config.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().strip().splitlines()[-1]


async def artifact(http: httpx.AsyncClient, key: str) -> str:
    found = await http.get(f"artifacts/{key}/latest")
    return str(found.raise_for_status().json()["data"])


async def events(http: httpx.AsyncClient, prefix: str) -> list[dict[str, Any]]:
    wanted = {"filter": {"event": {"prefix": [prefix]}, "order": "ASC"}}
    found: list[dict[str, Any]] = (await http.post("events/filter", json=wanted)).raise_for_status().json()["events"]
    return found


async def is_shut(state_dir: Path) -> bool:
    async with Queue.open(ensure_redis(state_dir), SEND_QUEUE) as queue:
        gates = {state.gate.name: state.gate for state in await queue.gates()}
    gate = gates.get(str(GateName.hold(SENDER)))
    return gate is not None and gate.paused_until_ms is not None


async def test_a_domain_that_fails_is_shown_held_and_let_go(
    server: PrefectServer, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    config, state_dir = tmp_path / "postroad.toml", tmp_path / ".postroad"
    zone = zone_with({"_mta-sts.acme.dev": None, "_dmarc.acme.dev": {}})
    async with Nameserver(zone) as nameserver:
        config.write_text(
            f'[dns]\nnameservers = ["127.0.0.1:{nameserver.port}"]\n[dns_health]\ngrace_ms = "0s"\n'
            f'[routes.r]\nhost = "127.0.0.1"\n[senders.news]\naddress = "{SENDER}"\nroute = "r"\n'
            'postal_address = "1 Post Road, Milestone"\npublic_addresses = ["198.51.100.7"]\ndkim_selectors = ["a"]\n'
            '[senders.nobody]\naddress = "x@example.com"\nroute = "r"\npostal_address = "1 Post Road, Milestone"\n'
        )
        try:
            assert await run_flow(server, config) == "1 sender checked, 1 with faults, 1 held back"
            assert await is_shut(state_dir)
            page = await artifact(http, "dns-news-acme-dev")
            assert page.startswith("# acme.dev: fail")
            assert '_dmarc.acme.dev. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@acme.dev"' in page
            assert r"no record at \_dmarc\.acme\.dev" in page, "data in a page is no markup"
            assert '"verdict": "fail"' in await artifact(http, "dns-health")

            nameserver.zone["_dmarc.acme.dev"] = GOOD["_dmarc.acme.dev"]
            assert await run_flow(server, config) == "1 sender checked, 0 with faults, 0 held back"
            assert not await is_shut(state_dir)
            assert "* gone: DMARC acme.dev" in await artifact(http, "dns-news-acme-dev")
        finally:
            stop_redis(state_dir)
    engine = open_engine(sqlite_url(state_dir))
    with read(engine) as connection:
        row = connection.execute(sa.text("SELECT reason, held_at, ended_at, ended_why FROM sender_hold")).one()
    engine.dispose()
    assert "no record at _dmarc.acme.dev" in row.reason
    assert row.held_at < row.ended_at
    assert row.ended_why == "its DNS passes again"

    async def all_four() -> list[str]:
        found = [*await events(http, "postroad.domain."), *await events(http, "postroad.sender.")]
        return [event["event"] for event in found] if len(found) >= 4 else []

    assert await until(all_four, within_s=60, every_s=0.5) == [
        "postroad.domain.unhealthy",
        "postroad.domain.healthy",
        "postroad.sender.held",
        "postroad.sender.released",
    ]
