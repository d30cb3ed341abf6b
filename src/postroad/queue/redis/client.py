"""The client of a queue's server. It repeats a command only if the server did not run it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, assert_never, cast

from redis.asyncio import ConnectionPool, Redis, UnixDomainSocketConnection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from postroad.errors import ConfigError
from postroad.queue.redis.discovery import (
    BASE_OPTIONS,
    ClusterFinder,
    DiscoveringConnection,
    Options,
    SentinelFinder,
    ServerFinder,
    TlsDiscoveringConnection,
    connection_class,
    plain_client,
)
from postroad.queue.redis.url import Host, RedisUrl, Topology, parse_redis_url

REPLICA_TIMEOUT_MS = 2000
"""Timeout of replicas that confirm a write."""

_MAX_REDIRECTS = 3
_NOT_NOW = ("NOREPLICAS", "MISCONF", "UNBLOCKED", "MASTERDOWN")
"""Replies of a server that cannot write now. redis-py has no exceptions for them."""
_DENIED = ("The user executing the script can't", "ACL failure in script")
"""NOPERM inside a script."""


class Client(Redis):
    """Repeats a command only after MOVED: that server did not run it.

    Raises RedisConnectionError for errors that are transient, or that another server would not return.
    """

    finder: ServerFinder | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command on the server that has the queue."""
        run = cast("Callable[..., Awaitable[Any]]", super().execute_command)
        return await self._with_redirects(lambda: run(*args, **options))

    async def execute_and_wait(self, replicas: int, *command: str | bytes | int) -> Any:
        """Run a command, and return its reply when replicas have confirmed its writes (WAIT).

        Args:
            replicas: Number of replicas that must confirm.
            command: The command and its arguments.

        Returns:
            The reply of the command.

        Raises:
            RedisConnectionError: Fewer replicas confirmed in time. The command ran nevertheless.
        """

        async def run() -> Any:
            # One pipeline, hence one connection: WAIT covers the writes of its own connection.
            async with self.pipeline(transaction=False) as both:
                both.execute_command(*command)
                both.execute_command("WAIT", replicas, REPLICA_TIMEOUT_MS)
                reply, confirmed = await both.execute(raise_on_error=False)
            for answer in (reply, confirmed):
                if isinstance(answer, Exception):
                    raise answer
            if confirmed < replicas:
                raise RedisConnectionError(f"only {confirmed} of {replicas} replicas confirm the write")
            return reply

        return await self._with_redirects(run)

    async def _with_redirects(self, run: Callable[[], Awaitable[Any]]) -> Any:
        for _ in range(_MAX_REDIRECTS):
            try:
                return await run()
            except MovedError as error:
                await self._disconnect_idle()
                if self.finder is None:
                    raise ConfigError(
                        "The Redis server is a node of a cluster.",
                        remedy="Use redis+cluster://… in place of redis://…",
                    ) from None
                if error.host:
                    self.finder.on_moved((str(error.host), int(error.port)))
            except AskError as error:
                # Not followed: the script would see only the keys that have moved. The base key never exists, so no
                # script runs on either node while the slot moves.
                raise RedisConnectionError("its slot is moving to another node") from error
            except (ReadOnlyError, ClusterDownError, TryAgainError) as error:
                await self._disconnect_idle()
                raise RedisConnectionError(str(error)) from error
            except ResponseError as error:
                if any(words in str(error) for words in _DENIED):
                    raise NoPermissionError(str(error)) from error
                if not str(error).startswith(_NOT_NOW):
                    raise
                await self._disconnect_idle()
                raise RedisConnectionError(str(error)) from error
        raise RedisConnectionError("its slot moves from node to node")

    async def _disconnect_idle(self) -> None:
        # A connection in use gets the same reply by itself.
        await self.connection_pool.disconnect(inuse_connections=False)


def connect(url: str, key: str = "") -> Client:
    """Return a client of the server that has the queue.

    Args:
        url: URL of the server, see `postroad.queue.redis.url`.
        key: Any key of the queue. A cluster needs it to find the slot.

    Raises:
        ConfigError: The URL is not valid.
    """
    return open_client(parse_redis_url(url), key)


def open_client(address: RedisUrl, key: str = "") -> Client:
    """Return a client without a timeout: its caller sets one.

    With a timeout of its own, redis-py sends by `asyncio.wait_for`, which on Python 3.11 sometimes swallows a
    cancellation. It speaks RESP2, because its reply shapes are the same on every supported server.

    Args:
        address: One server, sentinels or a cluster.
        key: Any key of the queue. A cluster needs it to find the slot.
    """
    options: dict[str, Any] = {"db": address.db, "username": address.username, "password": address.password}
    options = {**options, **BASE_OPTIONS, **_tls_options(address)}
    finder: ServerFinder | None = None
    match address.topology:
        case Topology.SERVER:
            pool = _pool_of_one(address, options)
        case Topology.SENTINEL | Topology.CLUSTER:
            if address.topology is Topology.SENTINEL:
                finder = SentinelFinder(address, options)
            else:
                finder = ClusterFinder(address, options, key)
            discovering = TlsDiscoveringConnection if address.tls else DiscoveringConnection
            pool = ConnectionPool(connection_class=discovering, finder=finder, **options)
        case other:
            assert_never(other)
    client = cast("Client", Client.from_pool(pool))
    client.finder = finder
    return client


def client_of(address: RedisUrl, host: Host, *, sentinel: bool = False) -> Redis:
    """Return a client of one server of a URL, whatever its role. ``sentinel``: log in as to a sentinel."""
    username, password = address.username, address.password
    if sentinel:
        username, password = address.sentinel_username, address.sentinel_password
    return plain_client(host, {"username": username, "password": password, **BASE_OPTIONS, **_tls_options(address)})


def _tls_options(address: RedisUrl) -> Options:
    if address.tls is None:
        return {}
    return {
        "ssl_ca_certs": address.tls.ca_file,
        "ssl_certfile": address.tls.cert_file,
        "ssl_keyfile": address.tls.key_file,
        "ssl_check_hostname": address.tls.check_hostname,
    }


def _pool_of_one(address: RedisUrl, options: Options) -> ConnectionPool:
    if address.path is not None:
        return ConnectionPool(connection_class=UnixDomainSocketConnection, path=address.path, **options)
    host, port = address.hosts[0]
    return ConnectionPool(connection_class=connection_class(options), host=host, port=port, **options)
