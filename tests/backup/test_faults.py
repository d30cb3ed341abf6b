"""A backup that fails leaves no file that looks whole, and a verification that fails leaves no database."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from postroad.backup.manifest import DUMPS
from postroad.errors import ConfigError, DataError, PostroadError, StateError, UnavailableError, UsageError
from postroad.store.engine import read, write
from tests.backup.backups import back_up, check, rewrite, server_of
from tests.postgresql import PostgresqlServer
from tests.store.large import add_recipients

KILLED = """
import os, signal, sys
from pathlib import Path
from postroad.store.engine import open_engine
from tests.backup.backups import back_up, check
what, url, path, at = sys.argv[1:]
def report(description, done, total):
    if description == at:
        os.kill(os.getpid(), signal.SIGKILL)
(back_up if what == "create" else check)(open_engine(url), Path(path), report=report)
"""


def run_killed(what: str, engine: sa.Engine, path: Path, *, at: str) -> None:
    """Run a backup or its verification in a process that is killed once it reports this part of its work."""
    url = engine.url.render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-c", KILLED, what, url, str(path), at], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "backup" in path.name)


def scratch_databases(engine: sa.Engine) -> list[str]:
    """Return the databases that verifications left on the server of a database. On SQLite there is no server."""
    if engine.dialect.name == "sqlite":
        return []
    with read(engine) as connection:
        statement = "SELECT datname FROM pg_database WHERE datname = current_database() || '_verify'"
        return list(connection.execute(sa.text(statement)).scalars())


@pytest.fixture
def temporary_folder(engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files. The server of ``engine`` was started before, with files elsewhere."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_a_killed_backup_leaves_no_file_and_the_next_one_cleans_up(engine: sa.Engine, tmp_path: Path) -> None:
    before = back_up(engine, tmp_path / "backup.tar").file.read_bytes()
    run_killed("create", engine, tmp_path / "backup.tar", at="counting")
    assert (tmp_path / "backup.tar").read_bytes() == before, "the earlier one is complete"
    [left, _] = left_in(tmp_path)
    assert (tmp_path / left).stat().st_mode & 0o777 == 0o700
    back_up(engine, tmp_path / "backup.tar")
    assert left_in(tmp_path) == ["backup.tar"]


def test_a_killed_verification_is_cleaned_up_by_the_next_one(
    engine: sa.Engine, tmp_path: Path, temporary_folder: Path
) -> None:
    made = back_up(engine, tmp_path / "backup.tar")
    run_killed("verify", engine, made.file, at="counting")
    assert left_in(temporary_folder) or scratch_databases(engine)
    assert check(engine, made.file).differences == []
    assert not left_in(temporary_folder)
    assert not scratch_databases(engine)


def test_a_running_backup_is_not_cleaned_up(engine: sa.Engine, tmp_path: Path) -> None:
    others: list[Path] = []

    def report(what: str, _done: int, _total: int) -> None:
        if what == "counting" and not others:
            others.append(back_up(engine, tmp_path / "other.tar").file)

    back_up(engine, tmp_path / "backup.tar", report=report)
    assert others
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == ["backup.tar", "other.tar"]


def test_a_file_that_was_cut_or_changed_is_refused(engine: sa.Engine, tmp_path: Path) -> None:
    made = back_up(engine, tmp_path / "backup.tar")
    whole = made.file.read_bytes()
    with tarfile.open(made.file) as tar:
        dump = tar.getmember(DUMPS[made.manifest.database]).offset_data
    changed = bytearray(whole)
    changed[dump + 2000] ^= 1
    damaged = {
        "has no manifest|no backup": [whole[:length] for length in (0, 100, 512, dump + 1000, len(whole) // 2)],
        "digest of database": [bytes(changed)],
        "no backup|manifest is damaged": [
            whole.replace(b'"sums"', b'"sume"'),
            whole.replace(b"manifest.json", b"manifest.jso_"),
        ],
        "no backup": [b"x" * 5000, b"PK\x03\x04" + whole],
    }
    for reason, files in damaged.items():
        for content in files:
            made.file.write_bytes(content)
            with pytest.raises(DataError, match=reason) as raised:
                check(engine, made.file)
            assert raised.value.where == str(made.file)


def test_a_backup_of_a_newer_version_is_refused(engine: sa.Engine, tmp_path: Path) -> None:
    made = back_up(engine, tmp_path / "backup.tar")
    rewrite(made.file, lambda it: msgspec.structs.replace(it, revision="9999", version="7.0"))
    with pytest.raises(ConfigError, match="at revision 9999"):
        check(engine, made.file)
    rewrite(made.file, lambda it: msgspec.structs.replace(it, format=2))
    with pytest.raises(ConfigError, match="of format 2"):
        check(engine, made.file)


def test_a_dump_that_cannot_be_restored_is_an_error(engine: sa.Engine, tmp_path: Path, temporary_folder: Path) -> None:
    def of_dump(change: Callable[[bytes], bytes]) -> Callable[[str, bytes], bytes]:
        return lambda name, it: change(it) if name.startswith("database") else it

    made = back_up(engine, tmp_path / "backup.tar")
    for contents in (of_dump(lambda it: it[: len(it) * 3 // 4]), of_dump(lambda it: b"x" * len(it))):
        rewrite(made.file, contents=contents)
        with pytest.raises(PostroadError) as raised:
            check(engine, made.file)
        if engine.dialect.name == "sqlite":
            assert isinstance(raised.value, DataError)
        else:
            assert raised.value.message.startswith("the backup cannot be restored: ")
            assert raised.value.exit_code == 1
    assert not left_in(temporary_folder)
    assert not scratch_databases(engine)


@contextmanager
def files_of_at_most(length: int) -> Iterator[None]:
    """Let no file of this process grow beyond a length, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_and_no_file_is_kept(engine: sa.Engine, tmp_path: Path, temporary_folder: Path) -> None:
    with write(engine) as connection:
        add_recipients(connection, 20_000)
    made = back_up(engine, tmp_path / "backup.tar")
    with files_of_at_most(100_000):
        with pytest.raises(ConfigError, match=r"cannot be (written|copied)"):
            back_up(engine, tmp_path / "second.backup")
        if engine.dialect.name == "sqlite":
            with pytest.raises(ConfigError, match="cannot be restored: File too large"):
                check(engine, made.file)
    assert left_in(tmp_path) == ["backup.tar"]
    assert not left_in(temporary_folder)


def test_a_missing_folder_is_an_error(engine: sa.Engine, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        back_up(engine, tmp_path / "missing" / "backup.tar")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that comes first on the PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.postgresql
class TestPostgresql:
    """Faults of programs and servers that SQLite does not need."""

    def test_missing_programs_are_named_with_their_package(
        self, postgresql_engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = back_up(postgresql_engine, tmp_path / "backup.tar")
        monkeypatch.setenv("PATH", str(tmp_path))
        for work, name in ((back_up, "pg_dump"), (check, "pg_restore")):
            with pytest.raises(ConfigError, match=f"{name} is not installed") as raised:
                work(postgresql_engine, made.file)
            assert "postgresql-client-" in str(raised.value.remedy)
        assert not scratch_databases(postgresql_engine)

    def test_a_program_that_is_older_than_the_server_is_refused(
        self, postgresql_engine: sa.Engine, tmp_path: Path, programs: Path
    ) -> None:
        script(programs / "pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24'")
        with pytest.raises(ConfigError, match=r"pg_dump is of version 9, and the server of version \d\d"):
            back_up(postgresql_engine, tmp_path / "backup.tar")
        script(programs / "pg_dump", "echo 'Error: You must install at least one package' >&2; exit 1")
        with pytest.raises(ConfigError, match="pg_dump is not installed"):
            back_up(postgresql_engine, tmp_path / "backup.tar")

    def test_no_command_line_has_the_password(self, postgresql_url: str, tmp_path: Path, programs: Path) -> None:
        engine = sa.create_engine(
            postgresql_url.replace("postgresql://postgres@", "postgresql+psycopg://postgres:s3cret@")
        )
        for name in ("pg_dump", "pg_restore"):
            seen = f'echo "$@" >> {tmp_path}/words; echo "$PGPASSWORD" >> {tmp_path}/passwords'
            script(
                programs / name, f'{seen}\nexec /usr/bin/env PATH={os.environ["PATH"].partition(":")[2]} {name} "$@"'
            )
        made = back_up(engine, tmp_path / "backup.tar")
        assert check(engine, made.file).differences == []
        engine.dispose()
        assert "s3cret" not in (tmp_path / "words").read_text()
        assert "s3cret" in (tmp_path / "passwords").read_text()
        assert b"s3cret" not in made.file.read_bytes()

    def test_a_pg_dump_that_fails_leaves_no_file(
        self, postgresql_engine: sa.Engine, tmp_path: Path, programs: Path
    ) -> None:
        """The role may not read all tables."""
        with write(postgresql_engine) as connection:
            connection.execute(sa.text("CREATE ROLE reader LOGIN"))
        reader = sa.create_engine(postgresql_engine.url.set(username="reader"))
        try:
            with pytest.raises(ConfigError, match="cannot be read: permission denied"):
                back_up(reader, tmp_path / "backup.tar")
            with write(postgresql_engine) as connection:
                connection.execute(sa.text("GRANT SELECT ON alembic_version TO reader"))
            with pytest.raises(UnavailableError, match=r"pg_dump failed: .*permission denied"):
                back_up(reader, tmp_path / "backup.tar")
            assert not list(tmp_path.glob("*backup*"))
            made = back_up(postgresql_engine, tmp_path / "backup.tar")
            with pytest.raises(ConfigError, match="cannot be created: permission denied") as raised:
                check(reader, made.file)
            assert "--server" in str(raised.value.remedy)
        finally:
            reader.dispose()
            with write(postgresql_engine) as connection:
                connection.execute(sa.text("DROP OWNED BY reader; DROP ROLE reader"))

    def test_a_database_of_another_origin_is_not_dropped(
        self, postgresql_server: PostgresqlServer, postgresql_engine: sa.Engine, tmp_path: Path
    ) -> None:
        made = back_up(postgresql_engine, tmp_path / "backup.tar")
        name = f"{postgresql_engine.url.database}_verify"
        with postgresql_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        try:
            with pytest.raises(StateError, match=f"has a database {name} already"):
                check(postgresql_engine, made.file)
            assert scratch_databases(postgresql_engine) == [name]
        finally:
            postgresql_server.drop(name)

    def test_one_verification_runs_at_a_time(self, postgresql_engine: sa.Engine, tmp_path: Path) -> None:
        made = back_up(postgresql_engine, tmp_path / "backup.tar")
        second: list[str] = []

        def report(what: str, _done: int, _total: int) -> None:
            if what == "counting" and not second:
                with pytest.raises(StateError, match="another verification runs") as raised:
                    check(postgresql_engine, made.file)
                second.append(str(raised.value))

        assert check(postgresql_engine, made.file, report=report).differences == []
        assert second

    def test_a_backup_of_postgresql_needs_a_server(self, postgresql_engine: sa.Engine, tmp_path: Path) -> None:
        from postroad.backup.verify import verify

        made = back_up(postgresql_engine, tmp_path / "backup.tar")
        with pytest.raises(UsageError, match="no server"):
            verify(made.file, None, (), lambda *_: None)
        assert server_of(postgresql_engine) is not None
