"""A real PostgreSQL for tests: one server a session, one database a test, copied from a migrated template."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from postroad.errors import UnavailableError
from postroad.store import migrate
from postroad.store.engine import open_engine, read
from postroad.store.ledger import TouchState

TEMPLATE = "postroad_template"
_START_S = 30
_numbers = count(1)


class PostgresqlServer:
    """One server process in a folder of its own, reached by a Unix socket, which a test may stop and start again."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            os.chown(folder, account.pw_uid, account.pw_gid)
            self._user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def initialise(self) -> None:
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command = [str(self._programs / "initdb"), f"--pgdata={self._data}", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self._folder, **self._user)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        # Nothing here outlives the machine, so nothing needs to be on the disk.
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._folder),
            "fsync": "off",
            "synchronous_commit": "on",  # `stop` kills it: what was committed must be in the kernel by then
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "max_connections": "60",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._user,
            )
        deadline_s = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline_s, (self._folder / "log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop at once and close all connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=_START_S)
            self._process = None

    def freeze(self) -> None:
        """Stop all processes of the server, which keeps its connections and answers none, until `thaw`."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        main = self._process.pid
        # The first starts no other process once it is stopped.
        os.kill(main, number)
        for child in Path(f"/proc/{main}/task/{main}/children").read_text().split():
            os.kill(int(child), number)

    def _answers(self) -> bool:
        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        with closing(
            psycopg.connect(host=str(self._folder), user="postgres", dbname="postgres", autocommit=True)
        ) as connection:
            connection.execute(statement.encode())

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def make_template(self) -> None:
        """Make the database, migrated, that `create` copies."""
        self._execute(f"CREATE DATABASE {TEMPLATE}")
        engine = open_engine(self.url(TEMPLATE))
        migrate.upgrade(engine)
        engine.dispose()

    def create(self, *, template: str = TEMPLATE) -> str:
        """Make a database. Returns its name."""
        name = f"test_{next(_numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")


def _programs() -> Path:
    """Return the folder of the server's programs. Skips the test if it is missing; fails in CI."""
    folders = sorted(
        (path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")),
        key=lambda folder: int(folder.parent.name),
    )
    on_path = shutil.which("initdb")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    for folder in reversed(folders):
        if (folder / "postgres").is_file():
            return folder
    reason = "no PostgreSQL server here: neither in /usr/lib/postgresql nor on the PATH"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _running_server() -> Iterator[PostgresqlServer]:
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="pr-pg-") as folder:
        server = PostgresqlServer(programs, Path(folder))
        server.initialise()
        try:
            server.start()
            server.make_template()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A server that tests share: keep to a database of your own."""
    yield from _running_server()


@pytest.fixture
def own_postgresql() -> Iterator[PostgresqlServer]:
    """A server for this test alone: stop it, start it."""
    yield from _running_server()


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """URL of a migrated database for this test alone."""
    name = postgresql_server.create()
    yield postgresql_server.url(name)
    postgresql_server.drop(name)


@pytest.fixture
def empty_postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """URL of a database without tables, for this test alone."""
    name = postgresql_server.create(template="template0")
    yield postgresql_server.url(name)
    postgresql_server.drop(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a migrated SQLite database, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    engine = open_engine(f"sqlite:///{path}")
    migrate.upgrade(engine)
    engine.dispose()
    return path


DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a migrated database for this test alone: the test runs once on each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    path = tmp_path / "postroad.db"
    shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite:///{path}"


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without tables: the test runs once on each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("empty_postgresql_url"))
    return f"sqlite:///{tmp_path / 'postroad.db'}"


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """Engine on a migrated database for this test alone: the test runs once on each kind."""
    engine = open_engine(database_url)
    yield engine
    assert_counts_agree(engine)
    engine.dispose()


def assert_counts_agree(engine: sa.Engine) -> None:
    """Compare the kept counts of touches with the touches. Touches that ended may have been deleted."""
    try:
        with read(engine) as connection:
            if not sa.inspect(connection).has_table("touch_count"):
                return
            found = sa.text("SELECT step_id, state, count(*) FROM touch GROUP BY step_id, state")
            kept = sa.text("SELECT step_id, state, sum(touches) FROM touch_count GROUP BY step_id, state")
            counted = {(step_id, state): n for step_id, state, n in connection.execute(found)}
            for step_id, state, n in connection.execute(kept):
                there = counted.pop((step_id, state), 0)
                assert n == there or (TouchState(state).ended and n > there), (step_id, state, n, there)
            assert not counted
            _assert_enrolments_agree(connection)
            _assert_traffic_agrees(connection)
            _assert_lists_agree(connection)
    except UnavailableError:
        pass  # The test took the database away.


def _assert_traffic_agrees(connection: sa.Connection) -> None:
    """Compare the traffic with the events and complaints that name their receivers, which may have been deleted."""
    if not all(sa.inspect(connection).has_table(table) for table in ("traffic", "delivery_event")):
        return
    receiver = "sender_id, provider, campaign_id"
    found = sa.text(
        f"SELECT state, {receiver}, count(*) FROM delivery_event WHERE sender_id IS NOT NULL GROUP BY 1, 2, 3, 4 "
        f"UNION ALL SELECT 'complained', {receiver}, count(*) FROM bounce_mail WHERE verdict = 'complaint' "
        "AND sender_id IS NOT NULL GROUP BY 1, 2, 3, 4"
    )
    kept = sa.text(f"SELECT outcome, {receiver}, sum(events) FROM traffic WHERE grain <> 'total' GROUP BY 1, 2, 3, 4")
    counted = {tuple(key): n for *key, n in connection.execute(found)}
    for *key, n in connection.execute(kept):
        assert n >= counted.pop(tuple(key), 0), key
    assert not counted


def _assert_lists_agree(connection: sa.Connection) -> None:
    """Compare the kept numbers of members, consents and suppressions with their rows."""
    if not sa.inspect(connection).has_table("consent_count"):
        return
    for table, keys, counts, names, number in (
        (
            "audience_member",
            "audience_id, COALESCE(joined_import_id, 0)",
            "audience_count",
            "audience_id, import_id",
            "members",
        ),
        ("consent", "audience_id, source", "consent_count", "audience_id, source", "consents"),
        ("suppression", "reason", "suppression_count", "reason", "suppressions"),
    ):
        found = sa.text(f"SELECT {keys}, count(*) FROM {table} GROUP BY {keys}")
        kept = sa.text(f"SELECT {names}, sum({number}) FROM {counts} GROUP BY {names} HAVING sum({number}) <> 0")
        assert set(connection.execute(found).all()) == set(connection.execute(kept).all())


def _assert_enrolments_agree(connection: sa.Connection) -> None:
    """Compare the kept counts of enrolments with the enrolments, which may have been deleted if they ended."""
    if not sa.inspect(connection).has_table("enrolment_count"):
        return
    key = "step_id, state, COALESCE(why, '') AS why, goal_at IS NOT NULL AS goal"
    found = sa.text(f"SELECT {key}, count(*) FROM enrolment GROUP BY 1, 2, 3, 4")
    kept = sa.text("SELECT step_id, state, why, goal, sum(enrolments) FROM enrolment_count GROUP BY 1, 2, 3, 4")
    counted = {(step_id, state, why, bool(goal)): n for step_id, state, why, goal, n in connection.execute(found)}
    for step_id, state, why, goal, n in connection.execute(kept):
        there = counted.pop((step_id, state, why, bool(goal)), 0)
        assert n == there or (state != "active" and n > there), (step_id, state, why, goal, n, there)
    assert not counted


@pytest.fixture
def postgresql_engine(postgresql_url: str) -> Iterator[sa.Engine]:
    """Engine on a migrated PostgreSQL database for this test alone, for what only several connections show."""
    engine = open_engine(postgresql_url)
    yield engine
    engine.dispose()


def wait_until_blocked(engine: sa.Engine, *, sessions: int = 1) -> None:
    """Return once so many sessions of this PostgreSQL database wait for a lock."""
    tick = Event()
    for _ in range(4_000):
        with read(engine) as connection:
            waiting = connection.execute(
                sa.text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND wait_event_type = 'Lock'"
                )
            ).scalar_one()
        if waiting >= sessions:
            return
        tick.wait(0.005)
    raise AssertionError("nobody waits for a lock")
