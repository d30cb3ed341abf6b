"""The engine: what it connects to, how writers wait, and how an unavailable database is reported."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.errors import ConfigError, UnavailableError
from postroad.store import migrate
from postroad.store.engine import open_engine, read, sqlite_url, write
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.types import UtcDateTime, sql_time
from tests.postgresql import PostgresqlServer
from tests.processes import run_together

NOW = datetime(2026, 5, 4, 8, 30, 15, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "not a database URL"),
        ("postgresql://host:port/name", "not a database URL"),
        ("mysql://host/name", "mysql is not a database that Postroad runs on"),
        ("redis://host/0", "redis is not a database that Postroad runs on"),
    ],
)
def test_what_is_no_database_of_ours_is_a_config_error(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        open_engine(url)
    assert caught.value.where == "POSTROAD_DATABASE_URL"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "url",
    ["postgresql://u@h/n", "postgres://u@h/n", "postgresql+psycopg2://u@h/n", "postgresql+asyncpg://u@h/n"],
)
def test_every_spelling_of_postgresql_means_psycopg_3(url: str) -> None:
    engine = open_engine(url)
    assert (engine.dialect.name, engine.dialect.driver) == ("postgresql", "psycopg")
    engine.dispose()


def test_the_spelling_for_an_async_driver_of_sqlite_means_sqlite(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path / 'postroad.db'}")
    assert (engine.dialect.name, engine.dialect.driver) == ("sqlite", "pysqlite")
    engine.dispose()


def test_the_folder_of_the_embedded_database_is_made(tmp_path: Path) -> None:
    engine = open_engine(sqlite_url(tmp_path / "deep" / "state"))
    with read(engine) as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar() == 1
    engine.dispose()
    assert (tmp_path / "deep" / "state" / "postroad.db").is_file()


def test_a_write_that_fails_keeps_nothing(engine: sa.Engine) -> None:
    insert = sa.text("INSERT INTO audience (name, created_at) VALUES (:name, :now)").bindparams(
        sa.bindparam("now", type_=UtcDateTime())
    )
    with pytest.raises(RuntimeError), write(engine) as connection:  # noqa: PT012
        connection.execute(insert, {"name": "lost", "now": NOW})
        raise RuntimeError
    with read(engine) as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM audience")).scalar() == 0


def test_an_instant_survives_in_microseconds_from_any_zone(engine: sa.Engine) -> None:
    from zoneinfo import ZoneInfo

    local = NOW.astimezone(ZoneInfo("Asia/Kathmandu"))
    insert = sa.text("INSERT INTO audience (name, created_at) VALUES ('a', :now)").bindparams(
        sa.bindparam("now", type_=UtcDateTime())
    )
    with write(engine) as connection:
        connection.execute(insert, {"now": local})
        statement = sa.text("SELECT created_at FROM audience").columns(sa.column("created_at", UtcDateTime()))
        kept = connection.execute(statement).scalar_one()
        assert kept == NOW
        assert kept.tzinfo is UTC
        # A time that is passed as text in JSON compares with one that was passed as a datetime.
        count = sa.text("SELECT count(*) FROM audience WHERE created_at = :text")
        if engine.dialect.name == "postgresql":
            count = sa.text("SELECT count(*) FROM audience WHERE created_at = CAST(:text AS timestamptz)")
        assert connection.execute(count, {"text": sql_time(local, engine.dialect.name)}).scalar() == 1


def test_an_instant_without_a_zone_is_refused(engine: sa.Engine) -> None:
    insert = sa.text("INSERT INTO audience (name, created_at) VALUES ('a', :now)").bindparams(
        sa.bindparam("now", type_=UtcDateTime())
    )
    with pytest.raises(sa.exc.StatementError, match="without a time zone"), write(engine) as connection:
        connection.execute(insert, {"now": NOW.replace(tzinfo=None)})


def test_foreign_keys_hold(engine: sa.Engine) -> None:
    insert = sa.text("INSERT INTO audience_member (audience_id, recipient_id, import_id) VALUES (1, 1, 1)")
    with pytest.raises(sa.exc.IntegrityError), write(engine) as connection:
        connection.execute(insert)


WRITERS = """
from datetime import UTC, datetime
import sqlalchemy as sa
from postroad.store.engine import open_engine, write
engine = open_engine(sys.argv[2])
gate()
for _ in range(40):
    with write(engine) as connection:  # Reads first and writes later, on what it read.
        n = connection.execute(sa.text("SELECT count(*) FROM suppression")).scalar_one()
        connection.execute(
            sa.text("INSERT INTO suppression (address, reason, source, created_at) VALUES (:a, 'x', 'x', :now)"),
            {"a": f"{n}@example.com", "now": "2026-01-01 00:00:00.000000"},
        )
engine.dispose()
"""


def test_processes_that_write_to_sqlite_at_once_wait_for_each_other(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    engine = open_engine(url)
    migrate.upgrade(engine)
    run_together(WRITERS, url, processes=4)
    with read(engine) as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM suppression")).scalar() == 160
    engine.dispose()


def test_a_reader_of_sqlite_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    engine = open_engine(sqlite_url(tmp_path))
    migrate.upgrade(engine)
    with write(engine) as writer:
        writer.execute(sa.text("INSERT INTO audience (name, created_at) VALUES ('new', '2026-01-01 00:00:00.000000')"))
        with read(engine) as reader:
            assert reader.execute(sa.text("SELECT count(*) FROM audience")).scalar() == 0
    engine.dispose()


def test_a_host_that_is_not_there_is_unavailable() -> None:
    engine = open_engine("postgresql://user:hunter2@127.0.0.1:1/name")
    with pytest.raises(UnavailableError, match="does not answer") as caught, read(engine):
        pass
    assert "hunter2" not in str(caught.value)
    assert caught.value.remedy
    with pytest.raises(UnavailableError):
        migrate.require_current(engine)
    engine.dispose()


def test_a_sqlite_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "postroad.db").mkdir()
    engine = open_engine(sqlite_url(tmp_path))
    with pytest.raises(UnavailableError, match="unable to open database file"), read(engine):
        pass
    engine.dispose()


@pytest.mark.postgresql
def test_a_server_that_stops_is_unavailable_until_it_is_back(own_postgresql: PostgresqlServer) -> None:
    engine = open_engine(own_postgresql.url(own_postgresql.create()))
    assert suppress_now(engine, ["a@example.com"], SuppressionReason.MANUAL, "test", NOW) == 1
    own_postgresql.stop()
    with pytest.raises(UnavailableError):
        suppress_now(engine, ["b@example.com"], SuppressionReason.MANUAL, "test", NOW)
    with pytest.raises(UnavailableError), read(engine):
        pass
    own_postgresql.start()
    assert suppress_now(engine, ["b@example.com"], SuppressionReason.MANUAL, "test", NOW) == 1
    engine.dispose()


@pytest.mark.postgresql
def test_a_server_that_stops_within_a_transaction_is_unavailable(own_postgresql: PostgresqlServer) -> None:
    engine = open_engine(own_postgresql.url(own_postgresql.create()))
    with pytest.raises(UnavailableError), write(engine) as connection:  # noqa: PT012
        connection.execute(sa.text("SELECT 1"))
        own_postgresql.stop()
        connection.execute(sa.text("SELECT 1"))
    engine.dispose()
