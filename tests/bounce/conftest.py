"""Queues of each test: inbound mail, and outbound mail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.mail.token import TokenSigner
from postroad.queue import Queue
from postroad.queue.redis.client import connect
from tests.bounce.ledger import LedgerFixture


@asynccontextmanager
async def _queue(url: str, name: str) -> AsyncIterator[Queue]:
    async with Queue.open(url, name) as queue:
        yield queue
        assert await queue.audit() == []
    client = connect(url)
    for key in await client.keys(f"pr:{{{name}}}:*"):
        await client.delete(key)
    await client.aclose()


@pytest.fixture
async def bounces(redis_url: str) -> AsyncIterator[Queue]:
    async with _queue(redis_url, "bounces") as queue:
        yield queue


@pytest.fixture
async def mail(redis_url: str) -> AsyncIterator[Queue]:
    async with _queue(redis_url, "mail") as queue:
        yield queue


@pytest.fixture
def signer() -> TokenSigner:
    return TokenSigner(SecretStr("a key for tests"))


@pytest.fixture
def ledger(engine: sa.Engine, signer: TokenSigner) -> LedgerFixture:
    return LedgerFixture(engine, signer)
