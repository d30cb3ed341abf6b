"""Migrations: the schema of the database, step by step, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from importlib.resources import files

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from postroad.errors import ConfigError
from postroad.store.engine import read, transient


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("postroad.store") / "migrations"))
    return config


def upgrade(engine: sa.Engine) -> str:
    """Bring the schema to the newest revision, and return it. Harmless when it is there."""
    config = _config()
    with transient(), engine.connect() as connection:
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
    current, newest = current_revision(engine), newest_revision()
    if current != newest:
        raise ConfigError(
            f"the database is at revision {current or 'none'}, and this version needs {newest}",
            where=engine.url.render_as_string(hide_password=True),
            remedy="Run `postroad db upgrade`.",
        )
