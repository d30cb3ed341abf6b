from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trustme

from postroad.clock import Clock
from postroad.sandbox import Sandbox, SandboxConfig
from tests.kit.clock import SleepingClock
from tests.sandbox.client import Wire


class Bench:
    """Starts sandboxes and clients, and closes them at the end of the test."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.directory = directory
        self._stack = stack

    async def sandbox(self, *, clock: Clock | None = None, seed: int = 7, **settings: Any) -> Sandbox:
        config = SandboxConfig(directory=str(self.directory), **settings)
        return await self._stack.enter_async_context(Sandbox(config, rng=Random(seed), clock=clock))

    async def wire(self, sandbox: Sandbox) -> Wire:
        return await self._stack.enter_async_context(Wire(sandbox.host, sandbox.port))

    async def hello(self, sandbox: Sandbox) -> Wire:
        wire = await self.wire(sandbox)
        assert (await wire.greeted()).startswith("250")
        return wire


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(tmp_path / "sandbox", stack)


@pytest.fixture
def sleeper() -> SleepingClock:
    return SleepingClock()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> dict[str, Any]:
    """Return settings of a sandbox with a certificate for localhost."""
    issued = authority.issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return {"certificate": str(chain), "private_key": str(key)}


@pytest.fixture
def only_accepted(bench: Bench) -> Callable[[Sandbox], bytes]:
    """Return the only stored message."""

    def read(sandbox: Sandbox) -> bytes:
        (entry,) = sandbox.accepted()
        assert entry.path is not None
        return (sandbox.ledger_path.parent / entry.path).read_bytes()

    return read
