"""Every test of explanations runs on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.app.context import open_context
from postroad.queue import this_process
from postroad.settings import Settings
from tests.conftest import RedisServer
from tests.explain.scene import MORNING, SETTINGS, Scene, ms
from tests.kit.clock import FakeClock
from tests.on_uvloop import pytest_asyncio_loop_factories  # noqa: F401


@pytest.fixture
async def scene(
    own_redis: RedisServer, engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    monkeypatch.delenv("POSTROAD_CONFIG", raising=False)
    monkeypatch.setenv("POSTROAD_REDIS_URL", own_redis.url)
    monkeypatch.setenv("POSTROAD_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "postroad.toml").write_text(SETTINGS)
    clock = FakeClock(ms(MORNING))
    async with open_context(Settings.load(tmp_path / "postroad.toml"), clock, engine=engine) as context:
        queue = await context.queue("email:send")
        await queue.beat(this_process("worker"))
        yield Scene(context, queue, clock)
