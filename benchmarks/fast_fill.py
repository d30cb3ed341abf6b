"""A connection that inserts millions of rows fast: without triggers, foreign keys and indexes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

_SQLITE = (
    "journal_mode=OFF",
    "synchronous=OFF",
    "foreign_keys=OFF",
    "temp_store=MEMORY",
    "cache_size=-500000",
    "threads=2",
)
_SERVER = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "'8GB'"}
_SESSION = {
    "session_replication_role": "replica",  # No triggers, which are also what checks foreign keys.
    "synchronous_commit": "off",
    "maintenance_work_mem": "'512MB'",
    "work_mem": "'256MB'",
}


@contextmanager
def fast_filling(engine: sa.Engine, tables: Sequence[str] = ()) -> Iterator[sa.Connection]:
    """Yield a connection to fill a database of a benchmark. A failure of the machine may destroy the database.

    Args:
        engine: The database.
        tables: Their indexes are dropped, and made again at the end.
    """
    with _tuned(engine) as connection:
        indexes = _drop_indexes(connection, tables) if tables else []
        yield connection
        for index in indexes:
            with connection.begin():
                connection.exec_driver_sql(index)


@contextmanager
def _tuned(engine: sa.Engine) -> Iterator[sa.Connection]:
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection, _without_triggers(connection):
            driver = connection.connection.driver_connection
            assert driver is not None
            for pragma in _SQLITE:
                driver.execute(f"PRAGMA {pragma}")
            yield connection
        engine.dispose()  # The next connection has the settings of the product.
        return
    _set_server(engine, [f"ALTER SYSTEM SET {name} = {value}" for name, value in _SERVER.items()])
    with engine.connect() as connection:
        with connection.begin():
            for name, value in _SESSION.items():
                connection.exec_driver_sql(f"SET {name} = {value}")
        yield connection
        connection.invalidate()
    _set_server(engine, [f"ALTER SYSTEM RESET {name}" for name in _SERVER])


@contextmanager
def _without_triggers(connection: sa.Connection) -> Iterator[None]:
    with connection.begin():
        triggers = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
        for name, _ in triggers:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
    yield
    with connection.begin():
        for _, statement in triggers:
            connection.exec_driver_sql(statement)


def _set_server(engine: sa.Engine, statements: Sequence[str]) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in (*statements, "SELECT pg_reload_conf()"):
            connection.exec_driver_sql(statement)


def _drop_indexes(connection: sa.Connection, tables: Sequence[str]) -> list[str]:
    """Drop the indexes of tables that are no constraints. Returns the statements that make them."""
    names = ", ".join(f"'{table}'" for table in tables)
    if connection.dialect.name == "sqlite":
        of_tables = f"sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN ({names})"
        statement = f"SELECT name, sql FROM {of_tables}"
    else:
        statement = (
            f"SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ({names}) "
            "AND indexname NOT IN (SELECT conname FROM pg_constraint)"
        )
    with connection.begin():
        indexes = connection.exec_driver_sql(statement).all()
        for name, _ in indexes:
            connection.exec_driver_sql(f"DROP INDEX {name}")
    return [made for _, made in indexes]
