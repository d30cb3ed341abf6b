"""The receiver of the how-to page runs as it is written: it verifies, stores each event once, and refuses others."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from postroad.clock import SystemClock
from postroad.dns.resolver import Resolver
from postroad.events_out.client import EndpointClient, WebhookOutcome
from postroad.events_out.signature import WebhookSigner, make_secret
from tests.docs.pages import ROOT
from tests.events_out.receiver import SECRET
from tests.events_out.test_client import settings
from tests.kit.waiting import block_until

PAGE = ROOT / "docs" / "how-to" / "receive-events.md"
BODY = b'{"id":"evt_1","type":"message.accepted","data":{}}'


@pytest.fixture
def documented(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of the running receiver, and its folder."""
    program = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert program is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "WEBHOOK_SECRET": SECRET, "PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-c", program[1]], cwd=tmp_path, env=environment)
    try:
        block_until(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}/postroad", tmp_path
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_documented_receiver_stores_each_event_once(documented: tuple[str, Path], resolver: Resolver) -> None:
    url, folder = documented
    now = SystemClock().now()
    async with EndpointClient("shop", settings(url), resolver) as client:
        for _ in range(2):
            answer = await client.post(BODY, WebhookSigner([SECRET]).headers("evt_1", now, BODY))
            assert answer.outcome is WebhookOutcome.DELIVERED
        forged = await client.post(BODY, WebhookSigner([make_secret()]).headers("evt_2", now, BODY))
        assert (forged.outcome, forged.status) == (WebhookOutcome.REJECTED, httpx.codes.UNAUTHORIZED)
    with closing(sqlite3.connect(folder / "events.db")) as db:
        assert db.execute("SELECT id, type FROM event").fetchall() == [("evt_1", "message.accepted")]
