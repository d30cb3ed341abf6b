"""Every test of the API runs on both databases, with a real queue and a real mail server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from aiosmtpd.smtp import SMTP

from postroad.app.context import open_context
from postroad.settings import Settings
from tests.api.installation import CONFIG, Installation, Mailbox
from tests.api.server import ApiServer, an_api_server
from tests.conftest import RedisServer, a_server
from tests.on_uvloop import pytest_asyncio_loop_factories  # noqa: F401


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server for this test alone. One kind: the API does not depend on it."""
    with a_server("valkey") as server:
        yield server


@pytest.fixture
async def installation(
    own_redis: RedisServer, engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Installation]:
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(mailbox, hostname="mx.example.org", data_size_limit=None), "127.0.0.1", 0
    )
    monkeypatch.delenv("POSTROAD_CONFIG", raising=False)
    monkeypatch.setenv("POSTROAD_REDIS_URL", own_redis.url)
    monkeypatch.setenv("POSTROAD_STATE_DIR", str(tmp_path / "state"))
    path = tmp_path / "postroad.toml"
    path.write_text(CONFIG.format(port=server.sockets[0].getsockname()[1]))
    async with open_context(Settings.load(path), engine=engine) as context:
        yield Installation(context, mailbox, tmp_path, own_redis)
    server.close()


@pytest.fixture
async def api(installation: Installation) -> AsyncIterator[ApiServer]:
    async with an_api_server(installation) as server:
        yield server
