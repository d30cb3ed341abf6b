"""The schema: one that the models agree with, made once however many processes upgrade."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

from postroad.errors import ConfigError
from postroad.store import declare_tables, migrate
from postroad.store.engine import open_engine, read, write
from tests.processes import run_together


def test_models_and_migrations_agree(engine: sa.Engine) -> None:
    declare_tables()
    with read(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_models_and_migrations_name_the_same_partial_index(engine: sa.Engine) -> None:
    with read(engine) as connection:
        indexes = {index["name"]: index for index in sa.inspect(connection).get_indexes("touch")}
    where = indexes["ix_touch_planned"]["dialect_options"][f"{engine.dialect.name}_where"]
    assert "planned" in str(where)


def test_revisions_are_named_by_their_files_in_the_order_of_alembic() -> None:
    folder = Path(migrate.__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder))
    scripts = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert [file.name[1:5] for file in sorted((folder / "versions").glob("r*.py"))] == scripts[::-1]
    assert migrate.newest_revision() == scripts[0]


def test_an_upgrade_done_again_changes_nothing(engine: sa.Engine) -> None:
    with write(engine) as connection:
        connection.execute(
            sa.text("INSERT INTO suppression (address, reason, source, created_at) VALUES ('a@b.de', 'x', 'x', :now)"),
            {"now": "2026-01-01 00:00:00.000000+00:00"},
        )
    assert migrate.upgrade(engine) == migrate.newest_revision()
    with read(engine) as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM suppression")).scalar() == 1
    assert migrate.current_revision(engine) == migrate.newest_revision()


def test_a_database_without_tables_is_refused_with_the_command_that_makes_them(empty_database_url: str) -> None:
    engine = open_engine(empty_database_url)
    assert migrate.current_revision(engine) is None
    with pytest.raises(ConfigError, match="revision none, and this version needs") as caught:
        migrate.require_current(engine)
    engine.dispose()
    assert "`postroad db upgrade`" in (caught.value.remedy or "")
    assert engine.url.database is not None
    assert engine.url.database in (caught.value.where or "")


def test_a_database_of_this_version_is_accepted(engine: sa.Engine) -> None:
    migrate.require_current(engine)


def test_a_database_of_a_newer_version_says_that_this_one_is_too_old(engine: sa.Engine) -> None:
    with write(engine) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="revision 9999") as caught:
        migrate.require_current(engine)
    assert "newer version" in (caught.value.remedy or "")
    with pytest.raises(ConfigError, match="revision 9999"):
        migrate.upgrade(engine)


@pytest.mark.postgresql
def test_an_error_shows_no_password(empty_postgresql_url: str) -> None:
    engine = open_engine(empty_postgresql_url.replace("postgres@", "postgres:hunter2@"))
    with pytest.raises(ConfigError) as caught:
        migrate.require_current(engine)
    engine.dispose()
    assert "hunter2" not in str(caught.value)


UPGRADE = """
from postroad.store import migrate
from postroad.store.engine import open_engine
engine = open_engine(sys.argv[2])
gate()
migrate.upgrade(engine)
migrate.require_current(engine)
"""

EMBEDDED = """
from pathlib import Path
from postroad.app.context import ready_engine
from postroad.settings import Settings
settings = Settings(state_dir=Path(sys.argv[2]))
gate()
ready_engine(settings).dispose()
"""


def test_processes_that_upgrade_one_database_at_once_all_succeed(empty_database_url: str) -> None:
    run_together(UPGRADE, empty_database_url, processes=4)


def test_processes_that_start_together_all_find_the_embedded_database_ready(tmp_path: Path) -> None:
    run_together(EMBEDDED, str(tmp_path / "state"), processes=6)
