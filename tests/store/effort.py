"""What a database does for a statement, counted and not timed: the same on any machine, however busy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

_INSTRUCTIONS = 50
"""SQLite tells of so many instructions of its virtual machine at a time."""


@dataclass
class Effort:
    """Instructions of SQLite's virtual machine, or rows that PostgreSQL read of its tables and indexes."""

    count: int = 0


@contextmanager
def effort_of(connection: sa.Connection) -> Iterator[Effort]:
    """Count what this transaction has done within it."""
    effort = Effort()
    if connection.dialect.name == "postgresql":
        before = _rows_read(connection)
        yield effort
        effort.count = _rows_read(connection) - before
        return

    with _instructions(connection, effort):
        yield effort


@contextmanager
def sqlite_effort_of(engine: sa.Engine) -> Iterator[Effort]:
    """Count what transactions that begin within it do: of SQLite alone, which tells while it works."""
    effort = Effort()
    with ExitStack() as stack:

        def begun(connection: sa.Connection) -> None:
            stack.enter_context(_instructions(connection, effort))

        sa.event.listen(engine, "begin", begun)
        stack.callback(sa.event.remove, engine, "begin", begun)
        yield effort


@contextmanager
def _instructions(connection: sa.Connection, effort: Effort) -> Iterator[None]:
    def count_instructions() -> int:
        effort.count += _INSTRUCTIONS
        return 0

    driver = connection.connection.driver_connection
    assert driver is not None
    driver.set_progress_handler(count_instructions, _INSTRUCTIONS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


def _rows_read(connection: sa.Connection) -> int:
    statement = sa.text("SELECT sum(seq_tup_read) + sum(COALESCE(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables")
    return int(connection.execute(statement).scalar_one())
