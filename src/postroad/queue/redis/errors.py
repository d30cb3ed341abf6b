"""Errors of Redis: permanent ones (authentication, ACL, TLS), and others, after which the server is unavailable."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from postroad.errors import ConfigError, PostroadError, UnavailableError

LOST = (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError, NoPermissionError)
"""What redis-py raises when a server is down, restarting, loading, silent, or refuses this client."""

REPLY_S = 15.0
"""Timeout of a reply. After it the server counts as lost."""

_ACL_REMEDY = "docs/how-to/use-your-own-redis.md has the permissions that a queue needs."

_OURS_REFUSED = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""Parts of TLS alerts about a client's certificate (RFC 8446 §6.2)."""


def permanent_error(error: BaseException | str) -> ConfigError | None:
    """Return the error to raise if a retry cannot fix this one. None: it is transient."""
    for cause in _chain(error) if isinstance(error, BaseException) else ():
        match cause:
            case ConfigError():
                return cause
            case NoPermissionError():
                return ConfigError(f"The Redis server does not permit this user: {cause}", remedy=_ACL_REMEDY)
            case AuthenticationError():
                return ConfigError(
                    f"The Redis server does not accept user and password: {cause}",
                    remedy="Correct them in the URL: redis://user:password@host:6379/0, with %40 for @ and %2F for /.",
                )
            case ssl.SSLCertVerificationError():
                return ConfigError(
                    f"The Redis server's certificate is not trusted: {cause.verify_message}",
                    remedy="Name its authority, rediss://…?ssl_ca_certs=/path/to/ca.pem, and the host that it names.",
                )
            case ssl.SSLError() if any(word in (cause.reason or "") for word in _OURS_REFUSED):
                return ConfigError(
                    f"The Redis server does not accept our certificate: {cause.reason}",
                    remedy="Name one in the URL: rediss://…?ssl_certfile=/path/to/cert.pem&ssl_keyfile=/path/to/key.pem",
                )
            case _:
                pass
    return None


def unavailable(error: BaseException | str) -> PostroadError:
    """Return what to raise for one of LOST: UnavailableError, or ConfigError if a retry cannot fix it."""
    return permanent_error(error) or UnavailableError(
        f"The queue's Redis server does not answer: {error}",
        remedy="Nothing is lost; try again when it is back.",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
