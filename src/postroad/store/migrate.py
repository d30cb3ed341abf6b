"""Migrations: the schema of the database, step by step, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from importlib.resources import files

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from postroad.errors import ConfigError
from postroad.store.engine import read, write

_LOCK_KEY = 0x706F7374  # of PostgreSQL's advisory lock: any number that nobody else of this database takes


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("postroad.store") / "migrations"))
    return config


def upgrade(engine: sa.Engine) -> str:
    """Bring the schema to the newest revision, in one transaction, and return it. Harmless when it is there.

    Processes that upgrade at once wait for each other. Raises ConfigError for the schema of a newer version.
    """
    config = _config()
    with write(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and not _is_known(current):
            raise _wrong_revision(engine, current)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return newest_revision()


def newest_revision() -> str:
    """Return the revision that this version of Postroad works with."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None  # noqa: S101  (the package ships at least one migration)
    return head


def current_revision(engine: sa.Engine) -> str | None:
    """Return the revision a database is at; None: it has no tables yet."""
    with read(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def require_current(engine: sa.Engine) -> None:
    """Raises ConfigError when the schema is not the one this version works with."""
    current = current_revision(engine)
    if current != newest_revision():
        raise _wrong_revision(engine, current)


def _is_known(revision: str) -> bool:
    return revision in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _wrong_revision(engine: sa.Engine, current: str | None) -> ConfigError:
    known = current is None or _is_known(current)
    return ConfigError(
        f"the database is at revision {current or 'none'}, and this version needs {newest_revision()}",
        where=engine.url.render_as_string(hide_password=True),
        remedy="Run `postroad db upgrade`." if known else "A newer version made its tables: install that one here.",
    )
