"""Migrations: the schema of the database, step by step, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import NoReturn

import sqlalchemy as sa

from postroad.errors import ConfigError
from postroad.store.engine import read, translate_db_errors, write, write_connection

_LOCK_KEY = 0x706F7374  # key of PostgreSQL's advisory lock: a number that no other user of this database takes
_FOLDER = files("postroad.store") / "migrations"


def upgrade(engine: sa.Engine) -> str:
    """Upgrade the schema to the newest revision in one transaction. Idempotent.

    Processes that upgrade at the same time wait for each other.

    Returns:
        The newest revision.

    Raises:
        ConfigError: A newer version made the schema.
    """
    with _upgrading(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        current = revision_in(connection)
        if current is not None and current not in known_revisions():
            _refuse(engine, current)
        if current != newest_revision():
            run_migrations(connection, "head")
    return newest_revision()


@contextmanager
def _upgrading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Run the block in a transaction that may copy a table on SQLite, to which rows of other tables refer.

    Foreign keys are not enforced meanwhile, and are checked before the commit (https://sqlite.org/lang_altertable,
    section 7).

    Yields:
        The connection.

    Raises:
        RuntimeError: A row refers to no row.
    """
    if engine.dialect.name != "sqlite":
        with write(engine) as connection:
            yield connection
        return
    with translate_db_errors(), write_connection(engine) as connection:
        outside = connection.connection.driver_connection  # In a transaction the pragma has no effect.
        assert outside is not None  # noqa: S101  (connected)
        outside.execute("PRAGMA foreign_keys = OFF")
        try:
            with connection.begin():
                yield connection
                if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                    raise RuntimeError("a migration left a row that refers to no row")
        finally:
            outside.execute("PRAGMA foreign_keys = ON")


def run_migrations(connection: sa.Connection, revision: str) -> None:
    """Run the migrations up to a revision, in the transaction of the connection."""
    from alembic import command  # half a second, and only an upgrade needs it
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def newest_revision() -> str:
    """Return the revision that this version of Postroad works with."""
    return known_revisions()[-1]


def current_revision(engine: sa.Engine) -> str | None:
    """Return the revision of a database; None without tables."""
    with read(engine) as connection:
        return revision_in(connection)


def require_current(engine: sa.Engine) -> None:
    """Raise ConfigError if the schema is not at the revision that this version needs."""
    current = current_revision(engine)
    if current != newest_revision():
        _refuse(engine, current)


def serves(revision: str | None) -> bool:
    """Return whether a running process of this version can use a schema.

    Args:
        revision: Revision of the database, from `current_revision`.

    Returns:
        True for the newest revision, and for one that a newer version made during an upgrade.
    """
    return revision is not None and revision not in known_revisions()[:-1]


def known_revisions() -> list[str]:
    """Return the revisions of this version in order, from the names of their files: ``r0001_first_tables.py``."""
    names = sorted(file.name for file in (_FOLDER / "versions").iterdir())
    return [name[1:5] for name in names if name.startswith("r")]


def revision_in(connection: sa.Connection) -> str | None:
    """Return the revision of a database, as the connection's transaction sees it; None without tables."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _refuse(engine: sa.Engine, current: str | None) -> NoReturn:
    known = current is None or current in known_revisions()
    raise ConfigError(
        f"the database is at revision {current or 'none'}, and this version needs {newest_revision()}",
        where=engine.url.render_as_string(hide_password=True),
        remedy="Run `postroad db upgrade`." if known else "A newer version made its tables: install that one here.",
    )
