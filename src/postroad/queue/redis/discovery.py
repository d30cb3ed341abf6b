"""Discovers the server that has a queue: the primary that sentinels name, or the node of a cluster with its slot.

A connection asks before it connects. A server that replies that it is not the one loses its connections, so the next
call asks again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Any, Protocol, cast

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from postroad.errors import ConfigError
from postroad.queue.redis.url import Host, RedisUrl

CONNECT_S = 5.0
ASK_S = 2.0
"""Timeout of a sentinel or a node that is asked which server has the queue. Others can be asked."""

Options = Mapping[str, Any]
"""Keyword arguments of a connection of redis-py."""

BASE_OPTIONS: Options = {
    "protocol": 2,
    "socket_connect_timeout": CONNECT_S,
    "socket_timeout": None,
    "retry": Retry(NoBackoff(), 0),
    "client_name": "postroad",
    "driver_info": None,  # Redis 7.0 has no CLIENT SETINFO, and no ACL need allow it.
}


class ServerFinder(Protocol):
    """Finds the server that has the queue."""

    async def find(self, gone: Set[Host]) -> Host:
        """Find the server.

        Args:
            gone: Servers that did not connect. One of these is returned only if no other is named.

        Returns:
            Host and port.

        Raises:
            RedisConnectionError: No sentinel or node names a server now.
            ConfigError: None ever will.
        """
        ...

    def on_moved(self, host: Host) -> None:
        """Note that a server replied that this one has the queue."""
        ...


class _Discovery:
    """Asks one host after the other, another first each time, because one may have an old view."""

    what = "sentinel"

    def __init__(self, hosts: tuple[Host, ...], options: Options) -> None:
        self._known = deque(hosts)
        self._options = options
        self._asked: set[asyncio.Task[Host | None]] = set()

    def on_moved(self, host: Host) -> None:
        if host in self._known:
            self._known.remove(host)
        self._known.appendleft(host)

    async def _answer(self, host: Host, ask: Callable[[Redis, Host], Awaitable[Host | None]]) -> Host | None:
        async def answer() -> Host | None:
            client = plain_client(host, self._options)
            try:
                async with asyncio.timeout(ASK_S):
                    return await ask(client, host)
            finally:
                await client.aclose()

        # Not cancelled: redis-py never closes a connection that is cancelled while it is made or closed.
        asked = asyncio.create_task(answer())
        self._asked.add(asked)
        asked.add_done_callback(self._on_asked)
        return await asyncio.shield(asked)

    def _on_asked(self, asked: asyncio.Task[Host | None]) -> None:
        self._asked.discard(asked)
        if not asked.cancelled():
            asked.exception()  # Retrieved, although the caller may have been cancelled.

    async def _first_answer(self, gone: Set[Host], ask: Callable[[Redis, Host], Awaitable[Host | None]]) -> Host | None:
        """Return the first server that is named and not gone. None: no reply names one."""
        refused: Exception | None = None
        silent, found = 0, None
        candidates = list(self._known)
        for host in candidates:
            try:
                found = await self._answer(host, ask) or found
                if found and found not in gone:
                    return found
            except (AuthenticationError, NoPermissionError):
                raise
            except ResponseError as error:
                if "cluster support disabled" in str(error) or "unknown command" in str(error).lower():
                    raise ConfigError(
                        f"{host[0]}:{host[1]} is not a {self.what}.", remedy="Use the URL of a single server: redis://…"
                    ) from error
                refused, silent = error, silent + 1
            except (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError) as error:
                refused, silent = error, silent + 1
            finally:
                self._known.rotate(-1)
        if refused and silent == len(candidates):
            raise RedisConnectionError(f"none of {_list(candidates)} names its server: {refused}") from refused
        return found


class SentinelFinder(_Discovery):
    """Finds the primary. <https://redis.io/docs/latest/develop/reference/sentinel-clients/>."""

    def __init__(self, address: RedisUrl, options: Options) -> None:
        login = {"username": address.sentinel_username, "password": address.sentinel_password}
        super().__init__(address.hosts, {**options, **login, "db": 0})
        self._service = address.service

    def on_moved(self, host: Host) -> None:
        """Do nothing: only sentinels name the primary."""

    async def find(self, gone: Set[Host]) -> Host:
        """Ask the sentinels for the primary, see `ServerFinder.find`."""

        async def ask(client: Redis, _: Host) -> Host | None:
            named = await raw_reply(client, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            return (text_of(named[0]), int(named[1])) if named else None

        found = await self._first_answer(gone, ask)
        if found is None:
            raise ConfigError(
                f"The sentinels know no primary named {self._service!r}.",
                remedy="Name it in the address as in `sentinel monitor NAME …`: redis+sentinel://host:26379/NAME.",
            )
        return found


class ClusterFinder(_Discovery):
    """Finds the node that has one slot. It also asks nodes that others named, so those of the URL may be removed."""

    what = "cluster"

    def __init__(self, address: RedisUrl, options: Options, key: str) -> None:
        super().__init__(address.hosts, options)
        self._slot = key_slot(key.encode())

    async def find(self, gone: Set[Host]) -> Host:
        """Ask the nodes for the owner of the slot, see `ServerFinder.find`."""

        async def ask(client: Redis, asked: Host) -> Host | None:
            owner = None
            for first, last, *nodes in await raw_reply(client, "CLUSTER", "SLOTS"):
                # A node omits its own address if it does not know it.
                hosts = [(text_of(node[0] or b"") or asked[0], int(node[1])) for node in nodes]
                self._known.extend(host for host in hosts if host not in self._known)
                if first <= self._slot <= last:
                    owner = hosts[0]
            return owner

        found = await self._first_answer(gone, ask)
        if found is None:
            raise RedisConnectionError(f"no node of the cluster serves slot {self._slot}")
        return found


class DiscoveringConnection(Connection):
    """A connection to the server that its finder names."""

    def __init__(self, *, finder: ServerFinder, **options: Any) -> None:
        super().__init__(**options)
        self._finder = finder

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Connect to the server that the finder names. If it does not reply, ask once more."""
        connect = super().connect_check_health
        gone: set[Host] = set()
        while not self.is_connected:
            self.host, self.port = host = await self._finder.find(gone)
            try:
                await connect(check_health=check_health, retry_socket_connect=retry_socket_connect)
            except AuthenticationError:
                raise
            except (RedisConnectionError, RedisTimeoutError):
                # Directly after a failover some still name the old primary.
                if host in gone:
                    raise
                gone.add(host)

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in, and refuse a server that is not a primary."""
        await super().on_connect_check_health(check_health=check_health)
        # The view of a sentinel may be old. A replica would reply to reads with old data.
        await self.send_command("INFO", "replication", check_health=False)
        if b"role:master" not in cast("bytes", await self.read_response()):
            raise RedisConnectionError(f"{self.host}:{self.port} is a replica")


class TlsDiscoveringConnection(DiscoveringConnection, SSLConnection):
    """The same over TLS."""


def plain_client(host: Host, options: Options) -> Redis:
    """Return a client of exactly this server, whatever its role."""
    return Redis.from_pool(
        ConnectionPool(connection_class=connection_class(options), host=host[0], port=host[1], **options)
    )


def connection_class(options: Options) -> type[Connection]:
    """Return the class of a direct connection with these options."""
    return SSLConnection if "ssl_ca_certs" in options else Connection


def raw_reply(client: Redis, *words: str) -> Awaitable[Any]:
    """Run a command and return its reply unparsed."""
    return cast("Callable[..., Awaitable[Any]]", client.execute_command)(*words)


def text_of(value: bytes | str) -> str:
    """Decode a reply."""
    return value.decode() if isinstance(value, bytes) else value


def _list(hosts: list[Host]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in hosts)
