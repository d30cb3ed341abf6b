"""The console, served by uvicorn, with a ledger and a queue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.queue.redis.client import connect
from tests.campaign.project import CampaignProject
from tests.conftest import RedisServer, a_server
from tests.console.kit import Console, open_console
from tests.console.launch_project import draft_project


@pytest.fixture(scope="session")
def valkey() -> Iterator[RedisServer]:
    with a_server("valkey") as server:
        yield server


@pytest.fixture
async def redis_url(valkey: RedisServer) -> AsyncIterator[str]:
    """URL of a queue's server, which is empty again afterwards."""
    yield valkey.url
    client = connect(valkey.url)
    await client.flushall()
    await client.aclose()


@pytest.fixture
async def console(engine: sa.Engine, redis_url: str, tmp_path: Path) -> AsyncIterator[Console]:
    """The console: the test runs once on each kind of database, unless it names one by `database_url`."""
    async with open_console(engine, redis_url, tmp_path / "state") as console:
        yield console


@pytest.fixture
def project(tmp_path: Path, console: Console) -> CampaignProject:
    """A draft with three recipients, in the store of the console, with the settings of the console."""
    return draft_project(tmp_path / "project", console)
