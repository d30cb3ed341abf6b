from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from postroad.embedded import server_binary
from tests.conftest import RedisServer
from tests.end_to_end.site import Site, open_site


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A server for one test, which may kill and empty it."""
    with tempfile.TemporaryDirectory(prefix="pr") as folder:
        server = RedisServer(server_binary(), Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture
async def site(tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    async with open_site(tmp_path, redis, monkeypatch.setenv) as opened:
        yield opened
