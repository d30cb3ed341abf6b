"""The engine on SQLite or PostgreSQL, and the one way to write."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from postroad.errors import ConfigError, UnavailableError
from postroad.field_types import field_text, lower_text, read_date_ms, read_number

_WRITES = "postroad_writes"

commit_hook: ContextVar[Callable[[sa.Connection], None] | None] = ContextVar("commit_hook", default=None)
"""Called before a transaction of `write` commits. `postroad.store.audit` adds the record of an act to it."""

_SQLITE_BUSY_S = 30.0
"""How long a process waits for another that has the file."""

# A server whose machine failed does not answer and closes no connection: after a minute it counts as unavailable.
_HEARTBEAT = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}

_read_json = msgspec.json.decode
"""Merge fields are read for every touch; the standard library takes five times as long."""

_fields_of = lru_cache(maxsize=2)(_read_json)
"""Conditions read several fields of one recipient after each other. The result must not be changed."""

_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "postroad_field": (2, lambda values, name: field_text(_fields_of(values), name)),
    "postroad_number": (1, read_number),
    "postroad_date_ms": (1, read_date_ms),
    "postroad_lower": (1, lower_text),
}
"""Functions of conditions on SQLite, by name, with the number of their arguments."""


def sqlite_url(state_dir: Path) -> str:
    """Return the URL of the database in a state folder."""
    return f"sqlite:///{state_dir / 'postroad.db'}"


def open_engine(url: str) -> sa.Engine:
    """Return an engine, without a connection.

    Args:
        url: URL of the database. ``postgresql://``, with any driver, uses psycopg 3.

    Returns:
        The engine.

    Raises:
        ConfigError: The URL is not valid, or names another kind of database.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        raise ConfigError(
            "not a database URL", where="POSTROAD_DATABASE_URL", remedy="Write postgresql://user@host/name."
        ) from None
    match parsed.get_backend_name():
        case "sqlite":
            parsed = parsed.set(drivername="sqlite")
            if parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            arguments = {"check_same_thread": False, "timeout": _SQLITE_BUSY_S}
            engine = sa.create_engine(parsed, connect_args=arguments, json_deserializer=_read_json)
            sa.event.listen(engine, "connect", _sqlite_connect)
            sa.event.listen(engine, "begin", _sqlite_begin)
            return engine
        case "postgresql" | "postgres":
            parsed = parsed.set(drivername="postgresql+psycopg")
            options = {"connect_timeout": 10, "application_name": "postroad", **_HEARTBEAT}
            return sa.create_engine(parsed, pool_pre_ping=True, connect_args=options, json_deserializer=_read_json)
        case other:
            raise ConfigError(
                f"{other} is not a database that Postroad runs on",
                where="POSTROAD_DATABASE_URL",
                remedy="Use PostgreSQL, or unset it for SQLite in the state folder.",
            )


def _sqlite_connect(connection: Any, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # `_sqlite_begin` begins the transactions.
    cursor = connection.cursor()
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")  # NORMAL may lose commits when the machine fails. A ledger may not.
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA cache_size=-65536")
    cursor.close()
    for name, (arguments, function) in _FUNCTIONS.items():
        connection.create_function(name, arguments, function, deterministic=True)


def _use_wal(cursor: sqlite3.Cursor) -> None:
    # The first connection switches the mode. It needs exclusive access, for which SQLite does not wait.
    deadline_s = time.monotonic() + _SQLITE_BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)


def _sqlite_begin(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later fails at once when another one wrote in between (SQLITE_BUSY).
    # So a transaction that will write waits for the lock at its start.
    immediate = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def write_connection(engine: sa.Engine) -> sa.Connection:
    """Return a connection whose transactions write. The caller begins, commits and closes."""
    return engine.connect().execution_options(**{_WRITES: True})


@contextmanager
def write(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Run the block in a transaction that writes. Raises UnavailableError if the database is unavailable."""
    with translate_db_errors(), write_connection(engine) as connection, connection.begin():
        yield connection
        if (hook := commit_hook.get()) is not None:
            hook(connection)


@contextmanager
def read(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Run the block in a transaction that reads. Raises UnavailableError if the database is unavailable."""
    with translate_db_errors(), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def translate_db_errors() -> Iterator[None]:
    """Raise UnavailableError in place of the errors of a database that does not answer."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        reason = str(error.orig).strip().partition("\n")[0]
        raise UnavailableError(
            f"the database does not answer: {reason}",
            remedy="Check that its server runs and that `database_url` is right; then run the command again.",
        ) from error
