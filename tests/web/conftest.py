"""The public endpoints, served for real, before a ledger and a queue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.bounce.intake import Intake
from postroad.clock import Clock, SystemClock
from postroad.mail.token import Purpose, TokenSigner
from postroad.queue import Queue
from postroad.queue.redis.client import connect
from postroad.settings import WebSettings
from postroad.store.engine import open_engine, read
from postroad.web.app import create_app
from postroad.web.connections import WebConnectionLimiter, limiter_of
from postroad.web.serve import serving
from postroad.web.unsubscribe import WebParts
from tests.conftest import RedisServer, a_server

SIGNER = TokenSigner(SecretStr("a key of the tests"))
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


def path_of(touch: int) -> str:
    return f"/u/{SIGNER.sign(Purpose.UNSUBSCRIBE, touch)}"


@dataclass(kw_only=True)
class Web:
    engine: sa.Engine
    queue: Queue
    http: httpx.AsyncClient

    def suppressed(self) -> dict[str, tuple[int, str, str]]:
        """Audience, reason and source of each address."""
        with read(self.engine) as connection:
            rows = connection.execute(sa.text("SELECT address, audience_id, reason, source FROM suppression"))
            return {row.address: (row.audience_id, row.reason, row.source) for row in rows}


@asynccontextmanager
async def open_web(
    engine: sa.Engine,
    queue: Callable[[], Awaitable[Queue]],
    settings: WebSettings | None = None,
    *,
    bounces: Callable[[], Awaitable[Queue]] | None = None,
    clock: Clock | None = None,
    asks: httpx.AsyncClient | None = None,
    limiter: WebConnectionLimiter | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    """``bounces``: queue of inbound mail, if not ``queue``. ``asks``: client for outbound requests."""
    clock = clock or SystemClock()

    async def intake() -> Intake:
        return Intake(engine=engine, queue=await (bounces or queue)(), clock=clock)

    async with AsyncExitStack() as stack:
        http = asks if asks is not None else await stack.enter_async_context(httpx.AsyncClient())
        parts = WebParts(
            engine=engine,
            signer=SIGNER,
            clock=clock,
            queue=queue,
            intake=intake,
            http=http,
            settings=settings or WebSettings(),
        )
        limiter = limiter if limiter is not None else limiter_of(parts.settings)
        port = await stack.enter_async_context(serving(create_app(parts), "127.0.0.1", 0, limiter))
        yield await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20))


@pytest.fixture(scope="session")
def valkey() -> Iterator[RedisServer]:
    with a_server("valkey") as server:
        yield server


@pytest.fixture
async def queue(valkey: RedisServer) -> AsyncIterator[Queue]:
    async with Queue.open(valkey.url, "web") as queue:
        yield queue
    client = connect(valkey.url)
    await client.flushall()
    await client.aclose()


@pytest.fixture
async def web(engine: sa.Engine, queue: Queue) -> AsyncIterator[Web]:
    async def opened() -> Queue:
        return queue

    async with open_web(engine, opened) as http:
        yield Web(engine=engine, queue=queue, http=http)


@pytest.fixture
def away() -> sa.Engine:
    """A database that does not answer."""
    return open_engine("postgresql://nobody@127.0.0.1:1/none")
