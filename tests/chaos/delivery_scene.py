"""The processes and the provider of a run of a whole campaign."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from postroad.sandbox import Sandbox
from tests.chaos.server import Server
from tests.end_to_end.site import Site

WORKERS = 2


class DeliveryProcesses:
    """Our processes, which are restarted when they die."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._slots: list[asyncio.Task[None]] = []
        self._alive: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, site: Site) -> AsyncIterator[DeliveryProcesses]:
        processes = cls(site)
        commands: dict[str, tuple[str, ...]] = {f"worker {n}": ("worker",) for n in range(WORKERS)}
        # A restarted recorder finds its unacknowledged events by its name.
        commands["recorder"] = ("recorder", "--name", "chaos")
        processes._slots = [asyncio.create_task(processes._keep(name, words)) for name, words in commands.items()]
        try:
            yield processes
        finally:
            for slot in processes._slots:
                slot.cancel()
            await asyncio.gather(*processes._slots, return_exceptions=True)

    def worker(self, target: int) -> subprocess.Popen[bytes] | None:
        return self._alive.get(f"worker {target % WORKERS}")

    def recorder(self) -> subprocess.Popen[bytes] | None:
        return self._alive.get("recorder")

    async def _keep(self, name: str, words: tuple[str, ...]) -> None:
        while True:
            process = self._site.start(*words)
            self._alive[name] = process
            while process.poll() is None:
                await asyncio.sleep(0.05)
            del self._alive[name]
            await asyncio.sleep(0.2)


class Provider:
    """The provider of a site. It can be restarted with its port and its log."""

    def __init__(self, site: Site, stack: AsyncExitStack) -> None:
        self._site = site
        self._stack = stack
        self._port = site.sandbox.port

    async def restart(self, away_s: float) -> None:
        await self._site.sandbox.__aexit__(None, None, None)
        await asyncio.sleep(away_s)
        config = msgspec.structs.replace(self._site.sandbox.config, port=self._port)
        self._site.sandbox = await self._stack.enter_async_context(Sandbox(config))


@dataclass(kw_only=True)
class DeliveryScene:
    site: Site
    server: Server
    processes: DeliveryProcesses
    provider: Provider
    faults: Counter[str] = field(default_factory=Counter)
    allowed_unknown: int = 0
    locks: dict[str, asyncio.Lock] = field(default_factory=lambda: {"server": asyncio.Lock(), "other": asyncio.Lock()})
