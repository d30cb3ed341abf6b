"""A server that answers, and will not have us: what has to be mended before trying again may help."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from redis.exceptions import AuthenticationError, NoPermissionError

from postroad.errors import ConfigError

_ACL_REMEDY = "docs/how-to/use-your-own-redis.md has the permissions that a queue needs."

_OURS_REFUSED = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""In the alerts of RFC 8446 §6.2 that a server sends about a client's certificate."""


def refusal(error: BaseException | str) -> ConfigError | None:
    """The error to show for a refusal; None: it is none, and the server may have us later."""
    for cause in _chain(error) if isinstance(error, BaseException) else ():
        match cause:
            case ConfigError():
                return cause
            case NoPermissionError():
                return ConfigError(f"The Redis server does not permit this user: {cause}", remedy=_ACL_REMEDY)
            case AuthenticationError():
                return ConfigError(
                    f"The Redis server does not accept user and password: {cause}",
                    remedy="Mend them in the address: redis://user:password@host:6379/0, with %40 for @ and %2F for /.",
                )
            case ssl.SSLCertVerificationError():
                return ConfigError(
                    f"The Redis server's certificate is not trusted: {cause.verify_message}",
                    remedy="Name its authority, rediss://…?ssl_ca_certs=/path/to/ca.pem, and the host that it is for.",
                )
            case ssl.SSLError() if any(word in (cause.reason or "") for word in _OURS_REFUSED):
                return ConfigError(
                    f"The Redis server does not accept our certificate: {cause.reason}",
                    remedy="Name one in the address: rediss://…?ssl_certfile=/path/to/cert.pem&ssl_keyfile=/path/to/key.pem",
                )
            case _:
                pass
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
