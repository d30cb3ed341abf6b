"""Access to the console: users with passwords, sessions, and one-time sign-in links.

Tokens are random, of 256 bits, and stored as hashes: a copy of the database signs no one in.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

import sqlalchemy as sa
from sqlmodel import Field

from postroad.settings import AccessRole
from postroad.store.types import BIG_ID, StoredRow, StrEnumType, UtcDateTime

TOKEN_BYTES = 32
MAX_USER_CHARACTERS = 200
SEEN_EVERY = timedelta(minutes=1)
"""Interval at which the last use of a session is written."""
EXPIRED_ROWS = 1_000
"""Largest number of expired rows that one sign-in deletes, of each table."""


class ConsoleUser(StoredRow, table=True):
    """A user who signs in with a password."""

    __tablename__ = "console_user"

    name: str = Field(primary_key=True, sa_type=sa.String(MAX_USER_CHARACTERS))
    role: AccessRole = Field(sa_type=StrEnumType(AccessRole))
    password_hash: str = Field(sa_type=sa.String(200), description="argon2id, with its parameters")
    created_at: datetime = Field(sa_type=UtcDateTime)
    changed_at: datetime = Field(sa_type=UtcDateTime, description="when the password or the role was set")


class ConsoleSession(StoredRow, table=True):
    """A session of a browser."""

    __tablename__ = "console_session"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    token_hash: str = Field(sa_type=sa.String(64), unique=True)
    user: str = Field(sa_type=sa.String(MAX_USER_CHARACTERS), index=True, sa_column_kwargs={"name": "user_name"})
    role: AccessRole = Field(sa_type=StrEnumType(AccessRole))
    method: str = Field(sa_type=sa.String(24), description="link, password or oidc")
    origin: str = Field(sa_type=sa.String(100), description="client address at the sign-in")
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)
    seen_at: datetime = Field(sa_type=UtcDateTime, description="last use, to the minute")


class SignInLink(StoredRow, table=True):
    """A link that signs one user in, once."""

    __tablename__ = "sign_in_link"

    token_hash: str = Field(primary_key=True, sa_type=sa.String(64))
    user: str = Field(sa_type=sa.String(MAX_USER_CHARACTERS), sa_column_kwargs={"name": "user_name"})
    role: AccessRole = Field(sa_type=StrEnumType(AccessRole))
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)


_USERS = ConsoleUser.__table__  # type: ignore[attr-defined]
_SESSIONS = ConsoleSession.__table__  # type: ignore[attr-defined]
_LINKS = SignInLink.__table__  # type: ignore[attr-defined]


def new_token() -> str:
    """Return a random token for a URL or a cookie."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(token: str) -> str:
    """Return the hash that is stored of a token. A random token needs no slow hash."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def save_user(connection: sa.Connection, name: str, role: AccessRole, password_hash: str, now: datetime) -> bool:
    """Add a user, or set the password and the role of one. The user's sessions and sign-in links end.

    Returns:
        Whether the user is new.
    """
    end_sessions_of(connection, name)
    changes = {"role": role, "password_hash": password_hash, "changed_at": now}
    if connection.execute(sa.update(_USERS).where(_USERS.c.name == name).values(changes)).rowcount:
        return False
    connection.execute(sa.insert(_USERS).values(name=name, created_at=now, **changes))
    return True


def set_password_hash(connection: sa.Connection, name: str, password_hash: str) -> None:
    """Store the hash of the same password with other parameters. Sessions continue."""
    connection.execute(sa.update(_USERS).where(_USERS.c.name == name).values(password_hash=password_hash))


def remove_user(connection: sa.Connection, name: str) -> bool:
    """Remove a user. The user's sessions and sign-in links end. Returns whether there was one."""
    end_sessions_of(connection, name)
    return connection.execute(sa.delete(_USERS).where(_USERS.c.name == name)).rowcount == 1


def find_user(connection: sa.Connection, name: str) -> ConsoleUser | None:
    """Return the user of a name."""
    row = connection.execute(sa.select(_USERS).where(_USERS.c.name == name)).first()
    return None if row is None else ConsoleUser(**row._mapping)


def users(connection: sa.Connection, *, after: str = "", limit: int | None = None) -> Sequence[ConsoleUser]:
    """Return users by name, those whose names come after a name. ``limit`` None: all of them."""
    statement = sa.select(_USERS).where(_USERS.c.name > after).order_by(_USERS.c.name).limit(limit)
    return [ConsoleUser(**row._mapping) for row in connection.execute(statement)]


def any_user(connection: sa.Connection) -> bool:
    """Return whether there is a user with a password."""
    return connection.execute(sa.select(_USERS.c.name).limit(1)).first() is not None


@dataclass(frozen=True, kw_only=True)
class SignIn:
    """A user who was authenticated.

    Attributes:
        user: Name of the user.
        role: Role of the session.
        method: How: ``link``, ``password`` or ``oidc``.
        origin: Client address.
        expires_at: End of the session.
    """

    user: str
    role: AccessRole
    method: str
    origin: str
    expires_at: datetime


def begin_session(connection: sa.Connection, sign_in: SignIn, now: datetime) -> str:
    """Begin a session, and delete expired sessions and links. Returns the token of the new session."""
    delete_expired(connection, now)
    token = new_token()
    connection.execute(
        sa.insert(_SESSIONS).values(
            token_hash=token_hash(token),
            user_name=sign_in.user[:MAX_USER_CHARACTERS],
            role=sign_in.role,
            method=sign_in.method,
            origin=sign_in.origin[:100],
            created_at=now,
            expires_at=sign_in.expires_at,
            seen_at=now,
        )
    )
    return token


def find_session(connection: sa.Connection, token: str, now: datetime, idle: timedelta) -> ConsoleSession | None:
    """Return the session of a token. None: it does not exist, has expired, or was idle too long."""
    statement = sa.select(_SESSIONS).where(
        _SESSIONS.c.token_hash == token_hash(token), _SESSIONS.c.expires_at > now, _SESSIONS.c.seen_at > now - idle
    )
    row = connection.execute(statement).first()
    return None if row is None else _session(row)


def _session(row: sa.Row[tuple[object, ...]]) -> ConsoleSession:
    values = dict(row._mapping)
    return ConsoleSession(user=values.pop("user_name"), **values)


def mark_seen(connection: sa.Connection, session_id: int, now: datetime) -> None:
    """Store that a session was used."""
    connection.execute(sa.update(_SESSIONS).where(_SESSIONS.c.id == session_id).values(seen_at=now))


def sessions(
    connection: sa.Connection, now: datetime, limit: int, *, before: int | None = None
) -> list[ConsoleSession]:
    """Return sessions that have not expired, the newest first.

    Args:
        connection: A connection.
        now: The time.
        limit: Largest number of sessions.
        before: Only sessions with a smaller id: the id of the last one of the page before.
    """
    statement = sa.select(_SESSIONS).where(_SESSIONS.c.expires_at > now).order_by(_SESSIONS.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(_SESSIONS.c.id < before)
    return [_session(row) for row in connection.execute(statement)]


def end_session(connection: sa.Connection, session_id: int) -> str | None:
    """End a session. Returns the name of its user. None: there is no such session."""
    statement = sa.delete(_SESSIONS).where(_SESSIONS.c.id == session_id).returning(_SESSIONS.c.user_name)
    return connection.execute(statement).scalar_one_or_none()


def end_sessions_of(connection: sa.Connection, user: str) -> int:
    """End all sessions of a user, and the links that would begin others. Returns the number of sessions."""
    connection.execute(sa.delete(_LINKS).where(_LINKS.c.user_name == user))
    return connection.execute(sa.delete(_SESSIONS).where(_SESSIONS.c.user_name == user)).rowcount


def make_link(connection: sa.Connection, user: str, role: AccessRole, *, now: datetime, expires_at: datetime) -> str:
    """Make a sign-in link. Returns its token."""
    token = new_token()
    values = {"token_hash": token_hash(token), "user_name": user[:MAX_USER_CHARACTERS], "role": role}
    connection.execute(sa.insert(_LINKS).values(created_at=now, expires_at=expires_at, **values))
    return token


def link_is_valid(connection: sa.Connection, token: str, now: datetime) -> bool:
    """Return whether a sign-in link can be used. It stays usable."""
    statement = sa.select(sa.literal(1)).where(_LINKS.c.token_hash == token_hash(token), _LINKS.c.expires_at > now)
    return connection.execute(statement).first() is not None


def use_link(connection: sa.Connection, token: str, now: datetime) -> tuple[str, AccessRole] | None:
    """Use a sign-in link up. Of concurrent calls one gets it.

    Returns:
        The user and the role. None: there is no such link, it has expired, or it was used.
    """
    statement = (
        sa.delete(_LINKS)
        .where(_LINKS.c.token_hash == token_hash(token), _LINKS.c.expires_at > now)
        .returning(_LINKS.c.user_name, _LINKS.c.role)
    )
    row = connection.execute(statement).first()
    return None if row is None else (row.user_name, row.role)


def delete_expired(connection: sa.Connection, now: datetime) -> int:
    """Delete expired sessions and links, at most `EXPIRED_ROWS` of each. Returns their number."""
    deleted = 0
    for table, key in ((_SESSIONS, _SESSIONS.c.id), (_LINKS, _LINKS.c.token_hash)):
        expired = sa.select(key).where(table.c.expires_at <= now).order_by(table.c.expires_at).limit(EXPIRED_ROWS)
        deleted += connection.execute(sa.delete(table).where(key.in_(expired))).rowcount
    return deleted
