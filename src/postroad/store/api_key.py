"""Keys of the HTTP API. The secret is shown once, and only its hash is stored."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.errors import StateError, unknown_name
from postroad.settings import AccessRole
from postroad.store.types import BIG_ID, StoredRow, StrEnumType, UtcDateTime

USE_RECORDED_EVERY: Final = timedelta(minutes=1)
"""The time of the last use is written at most so often for one key."""


class ApiKey(StoredRow, table=True):
    """One key. ``prefix`` finds it, ``hashed`` proves it."""

    __tablename__ = "api_key"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    name: str = Field(sa_type=sa.String(100), unique=True)
    prefix: str = Field(sa_type=sa.String(16), unique=True)
    hashed: str = Field(sa_type=sa.String(64), description="SHA-256 of the secret, in hexadecimal")
    scope: AccessRole = Field(sa_type=StrEnumType(AccessRole))
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="NULL: never")
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    def is_valid_at(self, now: datetime) -> bool:
        """Return whether the key may be used at a time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def use_is_due(self, now: datetime) -> bool:
        """Return whether a use at a time is to be recorded."""
        return self.last_used_at is None or now - self.last_used_at >= USE_RECORDED_EVERY


def insert_key(connection: sa.Connection, key: ApiKey) -> None:
    """Insert a key.

    Raises:
        StateError: There is a key with the same name, which may be revoked.
    """
    session = Session(connection)
    if session.exec(select(ApiKey.id).where(ApiKey.name == key.name)).first() is not None:
        raise StateError(
            f"there is an API key named {key.name!r}",
            remedy="Give the new key another name: the audit log names keys, also revoked ones.",
        )
    session.add(key)
    session.flush()
    session.expunge_all()


def key_by_prefix(connection: sa.Connection, prefix: str) -> ApiKey | None:
    """Return the key with a prefix, valid or not."""
    session = Session(connection)
    key = session.exec(select(ApiKey).where(ApiKey.prefix == prefix)).one_or_none()
    session.expunge_all()
    return key


def api_keys(connection: sa.Connection, *, after: str = "", limit: int | None = None) -> list[ApiKey]:
    """Return keys in the order of their names, those whose names come after a name. ``limit`` None: all of them."""
    session = Session(connection)
    statement = select(ApiKey).where(ApiKey.name > after).order_by(ApiKey.name).limit(limit)
    keys = list(session.exec(statement))
    session.expunge_all()
    return keys


def revoke_key(connection: sa.Connection, name: str, now: datetime) -> ApiKey:
    """Revoke a key. Idempotent: the time of the first revocation is kept.

    Returns:
        The key.

    Raises:
        StateError: No key has this name.
    """
    session = Session(connection)
    key = session.exec(select(ApiKey).where(ApiKey.name == name)).one_or_none()
    if key is None:
        error = unknown_name("API key", name, session.exec(select(ApiKey.name)), listed_by="postroad api-key list")
        raise StateError(error.message, remedy=error.remedy, missing=True)
    key.revoked_at = key.revoked_at or now
    session.add(key)
    session.flush()
    session.expunge_all()
    return key


def record_use(connection: sa.Connection, key_id: int, now: datetime) -> None:
    """Record that a key was used, unless a use within the last minute is recorded."""
    statement = (
        sa.update(ApiKey)
        .where(
            col(ApiKey.id) == key_id,
            sa.or_(col(ApiKey.last_used_at).is_(None), col(ApiKey.last_used_at) <= now - USE_RECORDED_EVERY),
        )
        .values(last_used_at=now)
    )
    connection.execute(statement)
