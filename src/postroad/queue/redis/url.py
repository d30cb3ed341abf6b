"""Parses the URL of a queue's server.

::

    redis://user:password@host:6379/0                             one server
    unix:///run/redis.sock                                        one server, by its socket
    redis+sentinel://user:password@s1:26379,s2:26379/mymaster/0   the primary that the sentinels name
    redis+cluster://user:password@n1:6379,n2:6379                 the node of a cluster that has the queue's slot

``rediss`` in place of ``redis`` is TLS, to the sentinels as well.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from msgspec import Struct

from postroad.errors import ConfigError

REDIS_PORT, SENTINEL_PORT = 6379, 26379

Host = tuple[str, int]


class Topology(StrEnum):
    """How the server that has the queue is found."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class Tls(Struct, frozen=True, kw_only=True):
    """PEM files: trusted authorities (None: the system's), and the client's certificate with its key."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True


class RedisUrl(Struct, frozen=True, kw_only=True):
    """``hosts``: of the server, the sentinels, or some nodes of the cluster. ``path``: of a unix socket instead.

    ``service``: the name under which the sentinels know the primary.
    """

    topology: Topology
    hosts: tuple[Host, ...] = ()
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    tls: Tls | None = None

    def __str__(self) -> str:
        """Return the URL without secrets."""
        if self.path is not None:
            return f"unix://{self.path}"
        scheme = ("rediss" if self.tls else "redis") + ("" if self.topology is Topology.SERVER else f"+{self.topology}")
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{hosts}" + (f"/{self.service}" if self.service else "")

    __repr__ = __str__


def parse_redis_url(url: str) -> RedisUrl:
    """Parse a URL.

    Args:
        url: As in the examples of this module.

    Returns:
        The parts of the URL.

    Raises:
        ConfigError: It is not the URL of a Redis server. The message does not quote it: it may contain a password.
    """
    try:
        parts = urlsplit(url)
        tls, topology = _scheme(parts.scheme)
        options = _options(parts)
        credentials, _, hosts = parts.netloc.rpartition("@")
        username, colon, password = credentials.partition(":")
        path = unquote(parts.path)
        service, db = "", path.strip("/")
        if topology is Topology.SENTINEL:
            service, _, db = path.strip("/").partition("/")
        is_unix = parts.scheme == "unix"
        if (is_unix and not path) or (topology is Topology.SENTINEL and not service):
            _refuse("it names no socket" if is_unix else "it does not name the primary, as in …/mymaster")
        number = int(options.pop("db", "0") if is_unix else db or options.pop("db", "0"))
        if number and topology is Topology.CLUSTER:
            _refuse("a cluster has no databases but 0")
        return RedisUrl(
            topology=topology,
            hosts=() if is_unix else _hosts(hosts, SENTINEL_PORT if topology is Topology.SENTINEL else REDIS_PORT),
            path=path if is_unix else None,
            db=number,
            username=unquote(username) or None,
            password=unquote(password) if colon else None,
            service=service,
            sentinel_username=options.pop("sentinel_username", None),
            sentinel_password=options.pop("sentinel_password", None),
            tls=_tls(options) if tls else None,
        )
    except ValueError:
        # Its text may quote what was read, and so may that of its cause.
        _refuse()


def _refuse(why: str = "") -> NoReturn:
    raise ConfigError(
        "That is not the address of a Redis server" + (f": {why}." if why else "."),
        remedy="It looks like redis://host:6379/0, rediss://…, unix:///path/to/socket, "
        "redis+sentinel://host:26379,host:26379/mymaster or redis+cluster://host:6379,host:6379.",
    ) from None


def _scheme(scheme: str) -> tuple[bool, Topology]:
    if scheme == "unix":
        return False, Topology.SERVER
    name, plus, kind = scheme.partition("+")
    if name not in {"redis", "rediss"} or (plus and kind not in {Topology.SENTINEL, Topology.CLUSTER}):
        _refuse()
    return name == "rediss", Topology(kind) if plus else Topology.SERVER


_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")


def _options(parts: SplitResult) -> dict[str, str]:
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    allowed = {"db"}
    if parts.scheme.startswith("rediss"):
        allowed |= set(_TLS_OPTIONS)
    if parts.scheme.endswith("+sentinel"):
        allowed |= {"sentinel_username", "sentinel_password"}
    for name in given:
        if name not in allowed:
            hint = "It is for rediss:// only." if name in _TLS_OPTIONS else f"There are: {', '.join(sorted(allowed))}."
            raise ConfigError(
                f"The address of the Redis server has an option that it cannot have: {name}.", remedy=hint
            )
    return given


def _tls(options: dict[str, str]) -> Tls:
    ca_file, cert_file, key_file = (options.get(name) for name in _TLS_OPTIONS[:3])
    for name, file in zip(_TLS_OPTIONS, (ca_file, cert_file, key_file), strict=False):
        if file is not None and not Path(file).is_file():
            raise ConfigError(f"{name} of the Redis server's address names no file: {file}", remedy="Correct the path.")
    if (cert_file is None) != (key_file is None):
        raise ConfigError(
            "The Redis server's address names a certificate without its key, or a key without its certificate.",
            remedy="Name both: ssl_certfile=…&ssl_keyfile=…",
        )
    check = options.get("ssl_check_hostname", "true").lower()
    if check not in {"true", "false"}:
        raise ConfigError("ssl_check_hostname of the Redis server's address is neither true nor false.")
    return Tls(ca_file=ca_file, cert_file=cert_file, key_file=key_file, check_hostname=check == "true")


def _hosts(text: str, default_port: int) -> tuple[Host, ...]:
    hosts = []
    for one in text.split(","):
        parts = urlsplit(f"//{one}")
        if not parts.hostname and (one or "," in text):
            _refuse("a host is missing")
        hosts.append((parts.hostname or "localhost", parts.port or default_port))
    return tuple(hosts)
