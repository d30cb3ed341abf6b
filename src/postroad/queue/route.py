"""The client of a queue's server, whichever server that is now.

Behind sentinels and in a cluster the server changes. Each connection asks, before it is made, who has the queue; a
server that says that it is not the one loses its connections, so that the next call asks again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Any, Protocol, assert_never, cast

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from postroad.errors import ConfigError
from postroad.queue.address import Address, Host, Topology

CONNECT_S = 5.0
ASK_S = 2.0
"""How long a sentinel or a node may take to say who has the queue: others can be asked."""

CONFIRM_MS = 2000
"""How long replicas may take to confirm a write."""

_MOVES = 3
_NOT_NOW = ("NOREPLICAS", "MISCONF", "UNBLOCKED", "MASTERDOWN")
"""What a server says that must not or cannot write now. redis-py has no exceptions for them."""
_DENIED = ("The user executing the script can't", "ACL failure in script")
"""NOPERM, where it is a script that may not."""


class Finder(Protocol):
    """Knows who knows which server has the queue."""

    async def find(self, gone: Set[Host]) -> Host:
        """The server that should be it now; one of ``gone`` only if nobody names another.

        Raises RedisConnectionError: nobody says; ConfigError: nobody ever will.
        """
        ...

    def told(self, host: Host) -> None:
        """A server said that this one has the queue."""
        ...


Options = Mapping[str, Any]


class _AskAround:
    """Asks one after the other, a different one first each time: what one says last may be out of date."""

    what = "sentinel"

    def __init__(self, hosts: tuple[Host, ...], options: Options) -> None:
        self._known = deque(hosts)
        self._options = options
        self._asked: set[asyncio.Task[Host | None]] = set()

    def told(self, host: Host) -> None:
        if host in self._known:
            self._known.remove(host)
        self._known.appendleft(host)

    async def _answer(self, host: Host, ask: Callable[[Redis, Host], Awaitable[Host | None]]) -> Host | None:
        async def answer() -> Host | None:
            client = _ask_client(host, self._options)
            try:
                async with asyncio.timeout(ASK_S):
                    return await ask(client, host)
            finally:
                await client.aclose()

        # It ends by itself: a connection that is cancelled while it is made or closed stays open.
        asked = asyncio.create_task(answer())
        self._asked.add(asked)
        asked.add_done_callback(self._over)
        return await asyncio.shield(asked)

    def _over(self, asked: asyncio.Task[Host | None]) -> None:
        self._asked.discard(asked)
        if not asked.cancelled():
            asked.exception()  # Seen, though whoever asked may have gone.

    async def _first_answer(self, gone: Set[Host], ask: Callable[[Redis, Host], Awaitable[Host | None]]) -> Host | None:
        """None: whoever answered does not know."""
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
                        f"{host[0]}:{host[1]} is no {self.what}.", remedy="Name it as what it is: redis://…"
                    ) from error
                refused, silent = error, silent + 1
            except (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError) as error:
                refused, silent = error, silent + 1
            finally:
                self._known.rotate(-1)
        if refused and silent == len(candidates):
            raise RedisConnectionError(f"none of {_list(candidates)} says who has it: {refused}") from refused
        return found


class _Sentinels(_AskAround):
    """The primary, as sentinels see it. <https://redis.io/docs/latest/develop/reference/sentinel-clients/>."""

    def __init__(self, address: Address, options: Options) -> None:
        login = {"username": address.sentinel_username, "password": address.sentinel_password}
        super().__init__(address.hosts, {**options, **login, "db": 0})
        self._service = address.service

    def told(self, host: Host) -> None:
        """Sentinels alone say who the primary is."""

    async def find(self, gone: Set[Host]) -> Host:
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


class _Cluster(_AskAround):
    """The node that has one slot. Nodes that others name are asked as well, so those of the address may go."""

    what = "cluster"

    def __init__(self, address: Address, options: Options, key: str) -> None:
        super().__init__(address.hosts, options)
        self._slot = key_slot(key.encode())

    async def find(self, gone: Set[Host]) -> Host:
        async def ask(client: Redis, asked: Host) -> Host | None:
            owner = None
            for first, last, *nodes in await raw_reply(client, "CLUSTER", "SLOTS"):
                # A node that does not know its own address leaves it out.
                hosts = [(text_of(node[0] or b"") or asked[0], int(node[1])) for node in nodes]
                self._known.extend(host for host in hosts if host not in self._known)
                if first <= self._slot <= last:
                    owner = hosts[0]
            return owner

        found = await self._first_answer(gone, ask)
        if found is None:
            raise RedisConnectionError(f"no node of the cluster serves slot {self._slot}")
        return found


class _Led(Connection):
    """A connection to wherever the finder leads."""

    def __init__(self, *, finder: Finder, **options: Any) -> None:
        super().__init__(**options)
        self._finder = finder

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        connect = super().connect_check_health
        gone: set[Host] = set()
        while not self.is_connected:
            self.host, self.port = host = await self._finder.find(gone)
            try:
                await connect(check_health=check_health, retry_socket_connect=retry_socket_connect)
            except AuthenticationError:
                raise
            except (RedisConnectionError, RedisTimeoutError):
                # Right after a failover some still name the old one.
                if host in gone:
                    raise
                gone.add(host)

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health=check_health)
        # Who is asked may not know yet. A replica answers reads with what is out of date.
        await self.send_command("INFO", "replication", check_health=False)
        if b"role:master" not in cast("bytes", await self.read_response()):
            raise RedisConnectionError(f"{self.host}:{self.port} is a replica")


class _LedByTls(_Led, SSLConnection):
    pass


class Client(Redis):
    """Never repeats a command by itself, unless a server says that it did not run it.

    Raises RedisConnectionError for all that another server, or this one later, may answer.
    """

    finder: Finder | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        run = cast("Callable[..., Awaitable[Any]]", super().execute_command)
        return await self._in_charge(lambda: run(*args, **options))

    async def confirmed(self, replicas: int, *command: str | bytes | int) -> Any:
        """Run a command, and return its reply when so many replicas have what it wrote."""

        async def run() -> Any:
            # Both in one go, hence on one connection: WAIT speaks of what its own connection wrote.
            async with self.pipeline(transaction=False) as both:
                both.execute_command(*command)
                both.execute_command("WAIT", replicas, CONFIRM_MS)
                reply, confirmed = await both.execute(raise_on_error=False)
            for answer in (reply, confirmed):
                if isinstance(answer, Exception):
                    raise answer
            if confirmed < replicas:
                raise RedisConnectionError(f"only {confirmed} of {replicas} replicas confirm the write")
            return reply

        return await self._in_charge(run)

    async def _in_charge(self, run: Callable[[], Awaitable[Any]]) -> Any:
        for _ in range(_MOVES):
            try:
                return await run()
            except MovedError as error:
                await self._leave()
                if self.finder is None:
                    raise ConfigError(
                        "The Redis server is a node of a cluster.",
                        remedy="Name it as one: redis+cluster://… in place of redis://…",
                    ) from None
                if error.host:
                    self.finder.told((str(error.host), int(error.port)))
            except AskError as error:
                # To follow would be to run a script against the half of a queue that has moved already. No key is
                # named as a queue's base, so no script runs while its slot moves, on either side.
                raise RedisConnectionError("its slot is moving to another node") from error
            except (ReadOnlyError, ClusterDownError, TryAgainError) as error:
                await self._leave()
                raise RedisConnectionError(str(error)) from error
            except ResponseError as error:
                if any(words in str(error) for words in _DENIED):
                    raise NoPermissionError(str(error)) from error
                if not str(error).startswith(_NOT_NOW):
                    raise
                await self._leave()
                raise RedisConnectionError(str(error)) from error
        raise RedisConnectionError("its slot moves from node to node")

    async def _leave(self) -> None:
        # What is in use finds out by itself.
        await self.connection_pool.disconnect(inuse_connections=False)


def open_client(address: Address, key: str = "") -> Client:
    """A client of the server that has ``key``. It waits for a reply without end, so its caller sets the limit.

    With a limit of its own, redis-py sends by `asyncio.wait_for`, which on Python 3.11 swallows a cancellation now and
    then. RESP2, because its reply shapes are the same on every server that is supported.
    """
    options: dict[str, Any] = {"db": address.db, "username": address.username, "password": address.password}
    options = {**options, **_BASE, **_tls_options(address)}
    finder: Finder | None = None
    match address.topology:
        case Topology.SERVER:
            pool = _pool_of_one(address, options)
        case Topology.SENTINEL | Topology.CLUSTER:
            if address.topology is Topology.SENTINEL:
                finder = _Sentinels(address, options)
            else:
                finder = _Cluster(address, options, key)
            led = _LedByTls if address.tls else _Led
            pool = ConnectionPool(connection_class=led, finder=finder, **options)
        case other:
            assert_never(other)
    client = cast("Client", Client.from_pool(pool))
    client.finder = finder
    return client


def client_of(address: Address, host: Host, *, sentinel: bool = False) -> Redis:
    """A client of one server of those that the address leads to, whatever its role."""
    username, password = address.username, address.password
    if sentinel:
        username, password = address.sentinel_username, address.sentinel_password
    return _ask_client(host, {"username": username, "password": password, **_BASE, **_tls_options(address)})


_BASE: Options = {
    "protocol": 2,
    "socket_connect_timeout": CONNECT_S,
    "socket_timeout": None,
    "retry": Retry(NoBackoff(), 0),
    "client_name": "postroad",
    "driver_info": None,  # Redis 7.0 knows no CLIENT SETINFO, and no ACL need allow it.
}


def _tls_options(address: Address) -> Options:
    if address.tls is None:
        return {}
    return {
        "ssl_ca_certs": address.tls.ca_file,
        "ssl_certfile": address.tls.cert_file,
        "ssl_keyfile": address.tls.key_file,
        "ssl_check_hostname": address.tls.check_hostname,
    }


def _pool_of_one(address: Address, options: Options) -> ConnectionPool:
    if address.path is not None:
        return ConnectionPool(connection_class=UnixDomainSocketConnection, path=address.path, **options)
    host, port = address.hosts[0]
    return ConnectionPool(connection_class=_plain(options), host=host, port=port, **options)


def _plain(options: Options) -> type[Connection]:
    return SSLConnection if "ssl_ca_certs" in options else Connection


def _ask_client(host: Host, options: Options) -> Redis:
    return Redis.from_pool(ConnectionPool(connection_class=_plain(options), host=host[0], port=host[1], **options))


def raw_reply(client: Redis, *words: str) -> Awaitable[Any]:
    """A command's reply as the server gave it."""
    return cast("Callable[..., Awaitable[Any]]", client.execute_command)(*words)


def text_of(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _list(hosts: list[Host]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in hosts)
