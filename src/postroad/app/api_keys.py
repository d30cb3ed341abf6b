"""Makes, checks and revokes keys of the HTTP API.

A key is `pr_PREFIX_SECRET`. The prefix finds its row. The secret has 256 random bits, so its SHA-256 needs no salt and
no slow hash. It is shown once.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Final

import sqlalchemy as sa

from postroad.campaign.steps import NAME_PATTERN
from postroad.errors import UsageError
from postroad.settings import AccessRole
from postroad.store.api_key import ApiKey, insert_key, key_by_prefix, record_use
from postroad.store.engine import read, write

_PREFIX_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_FORM: Final = re.compile(rf"pr_([0-9a-f]{{{2 * _PREFIX_BYTES}}})_([A-Za-z0-9_-]{{43}})", re.ASCII)
_NO_KEY: Final = sha256(b"").hexdigest()


@dataclass(frozen=True, kw_only=True)
class NewApiKey:
    """A key that was made. ``secret``: the whole key, which is not stored."""

    name: str
    scope: AccessRole
    expires_at: datetime | None
    secret: str = field(repr=False)


def create_key(
    connection: sa.Connection, name: str, scope: AccessRole, *, expires_at: datetime | None, now: datetime
) -> NewApiKey:
    """Make a key.

    Args:
        connection: A connection in a transaction that writes.
        name: Its name, by which the audit log names who used it.
        scope: What it may do.
        expires_at: When it ends. None: never.
        now: The time.

    Returns:
        The key.

    Raises:
        UsageError: The name is not valid, or the key would end before it begins.
        StateError: There is a key with this name.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(
            f"an API key cannot be called {name!r}",
            remedy="Use at most 64 lower case letters, digits, hyphens and underscores. The first must be a letter or "
            "a digit.",
        )
    if expires_at is not None and expires_at <= now:
        raise UsageError("the key would have expired already", remedy="Name a later time.")
    prefix, secret = secrets.token_hex(_PREFIX_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    key = ApiKey(
        name=name,
        prefix=prefix,
        hashed=sha256(secret.encode()).hexdigest(),
        scope=scope,
        created_at=now,
        expires_at=expires_at,
    )
    insert_key(connection, key)
    return NewApiKey(name=name, scope=scope, expires_at=expires_at, secret=f"pr_{prefix}_{secret}")


def authenticate(engine: sa.Engine, text: str, now: datetime) -> ApiKey | None:
    """Return the valid key that a text is, and record its use at most once a minute.

    The comparison takes the same time for every secret, and for a prefix that no key has.

    Args:
        engine: The database.
        text: What the client sent as a key.
        now: The time.

    Returns:
        The key. None: the text is not a key, or it is revoked or expired.

    Raises:
        UnavailableError: The database does not answer.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    with read(engine) as connection:
        key = key_by_prefix(connection, match[1])
    hashed = key.hashed if key is not None else _NO_KEY
    if not hmac.compare_digest(hashed, sha256(match[2].encode()).hexdigest()) or key is None:
        return None
    if not key.is_valid_at(now) or key.id is None:
        return None
    if key.use_is_due(now):
        with write(engine) as connection:
            record_use(connection, key.id, now)
    return key
