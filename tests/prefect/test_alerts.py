"""An alert is sent when mail is paused, if the settings name a block for alerts."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect import get_client
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from deployments.automations import ALERTING
from deployments.bootstrap import bootstrap, ensure_automations
from deployments.spec import read
from postroad.doctor.prefect import check_alerts
from postroad.local.prefect_pool import ALERTS
from postroad.local.prefect_server import HEARTBEAT_S, PrefectServer
from postroad.queue import Health
from tests.kit.waiting import until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(240), pytest.mark.usefixtures("prefect_client_settings")]

CHECKOUT = Path(__file__).parents[2]
PROJECT = read(CHECKOUT / "prefect.yaml")
BLOCK = "custom-webhook/to-ops"


@asynccontextmanager
async def alert_block() -> AsyncIterator[asyncio.Queue[dict[str, str]]]:
    """A block for alerts, and the alerts that it has sent."""
    alerts: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        [length] = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line[:14] == b"content-length"]
        alerts.put_nowait(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        body = {"subject": "{{subject}}", "body": "{{body}}"}
        block = CustomWebhookNotificationBlock(name="ops", url=f"http://127.0.0.1:{port}/", json_data=body)
        await block.asave(BLOCK.partition("/")[2], overwrite=True)
        yield alerts


async def installed(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    wanted = {"automations": {"name": {"any_": [ALERTS]}}}
    found: list[dict[str, Any]] = (await http.post("automations/filter", json=wanted)).raise_for_status().json()
    return found


async def emit(http: httpx.AsyncClient, event: str, **payload: str) -> None:
    sent = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": "postroad.cohort.7", "prefect.resource.name": "spring, hello: fair.csv"},
        "payload": payload,
    }
    (await http.post("events", json=[sent])).raise_for_status()


async def install(block: str | None) -> None:
    async with get_client() as client:
        await ensure_automations(client, HEARTBEAT_S, block)


async def alert_health(server: PrefectServer) -> Health:
    [check] = await check_alerts(server.access(), BLOCK)
    return check.health


async def test_a_paused_list_sends_an_alert_by_the_block(
    server: PrefectServer, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await install(BLOCK)
    assert "there is no block custom-webhook/to-ops" in caplog.text
    assert (await installed(http), await alert_health(server)) == ([], Health.FAIL)
    try:
        async with alert_block() as alerts:
            await bootstrap(PROJECT, alert_block=BLOCK)
            await install(BLOCK)
            [automation] = await installed(http)
            assert set(automation["trigger"]["expect"]) == ALERTING
            assert await alert_health(server) is Health.OK

            # The server loads a new automation a moment later, and earlier events trigger nothing.
            async def first_alert() -> dict[str, str]:
                await emit(http, "postroad.queue.mended", enqueued="1")
                await emit(http, "postroad.cohort.paused", reason="10 hard bounces of 50", resume="cohort resume 7")
                return alerts.get_nowait() if alerts.qsize() else {}

            assert await until(first_alert, within_s=60, every_s=0.5) == {
                "subject": "postroad.cohort.paused: spring, hello: fair.csv",
                "body": "reason: 10 hard bounces of 50\nresume: cohort resume 7\n",
            }
            others = [alerts.get_nowait()["subject"] for _ in range(alerts.qsize())]
            assert not [subject for subject in others if "cohort.paused" not in subject]

            (await http.patch(f"automations/{automation['id']}", json={"enabled": False})).raise_for_status()
            await install(BLOCK)
            assert [found["enabled"] for found in await installed(http)] == [False]
            assert await alert_health(server) is Health.WARN
    finally:
        await install(None)
    assert await installed(http) == []
