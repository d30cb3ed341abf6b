"""Dumps a PostgreSQL database with pg_dump, and restores a dump with pg_restore into a scratch database.

The programs get everything that the connection uses by environment variables, so no command line has a password.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Thread
from typing import IO, Any

import psycopg
import sqlalchemy as sa

from postroad.backup.archive import CHUNK, Output
from postroad.errors import ConfigError, PostroadError, StateError, UnavailableError
from postroad.store.engine import open_engine, read, translate_db_errors

Report = Callable[[int, int], None]

_MARK = "made by postroad backup verify, which drops it"
_LOCK_KEY = 0x706F7376  # key of PostgreSQL's advisory lock, next to that of the migrations
_MAX_ERRORS = 5
# Of a pg_restore that is newer than its server. The sums show whether anything is missing.
_HARMLESS = "unrecognized configuration parameter"


def dump(connection: sa.Connection, output: Output, tables: int, report: Report) -> None:
    """Write a dump of a database, as the connection's transaction sees it.

    Args:
        connection: The database, in a REPEATABLE READ transaction.
        output: Where to write.
        tables: Number of its tables.
        report: Called with the number of tables whose rows are being dumped, and of all.

    Raises:
        ConfigError: pg_dump is not installed, or is older than the server.
        UnavailableError: pg_dump failed.
    """
    raw = _driver(connection)
    program = require_program("pg_dump", raw.info.server_version // 10_000)
    snapshot = connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
    words = [program, "--format=custom", f"--snapshot={snapshot}", "--verbose", "--no-password"]
    tool = _Tool(words, _environment(raw), "dumping contents of table", lambda done: report(done, tables))
    report(0, tables)
    with tool.running(stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101  (a pipe)
        while chunk := process.stdout.read(CHUNK):
            output.write(chunk)
    if tool.status != 0:
        raise UnavailableError(f"pg_dump failed: {tool.reason}", remedy="Nothing was kept. Run the command again.")


def require_program(name: str, server: int) -> str:
    """Return the path of a client program of PostgreSQL.

    Args:
        name: Its name.
        server: Major version of the server.

    Returns:
        The path.

    Raises:
        ConfigError: It is not installed, or is older than the server.
    """
    path = shutil.which(name)
    remedy = f"Install PostgreSQL's client programs: the package postgresql-client-{server}, or a newer one."
    printed = ""
    if path is not None:
        # Debian's pg_dump is a script that chooses a version, and fails without one. It takes the newest for a host.
        environment = {**os.environ, "LC_ALL": "C", "PGHOST": "localhost"}
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, env=environment)
        printed = done.stdout
    found = re.search(r"\) (\d+)", printed)
    if path is None or found is None:
        raise ConfigError(f"{name} is not installed", where="PATH", remedy=remedy)
    if int(found[1]) < server:
        raise ConfigError(
            f"{name} is of version {found[1]}, and the server of version {server}", where=path, remedy=remedy
        )
    return path


@contextmanager
def scratch_database(server: sa.Engine) -> Iterator[sa.Engine]:
    """Make an empty database on a server, and drop it at the end.

    One of a process that was killed is dropped first. A comment tells it from a database that was made otherwise.

    Args:
        server: An engine on any database of the server. Its role must have the right to create databases.

    Yields:
        An engine on the new database.

    Raises:
        ConfigError: The role may not create databases.
        StateError: Another verification runs, or the name is in use.
        UnavailableError: The server does not answer.
    """
    with translate_db_errors(), server.connect() as plain:
        connection = plain.execution_options(isolation_level="AUTOCOMMIT")
        name = f"{connection.exec_driver_sql('SELECT current_database()').scalar_one()[:40]}_verify"
        quoted = connection.dialect.identifier_preparer.quote_identifier(name)
        _drop_left(connection, name, quoted)
        try:
            connection.exec_driver_sql(f"CREATE DATABASE {quoted} TEMPLATE template0 ENCODING 'UTF8'")
        except sa.exc.ProgrammingError as error:
            raise ConfigError(
                f"a database to restore into cannot be created: {str(error.orig).partition(chr(10))[0]}",
                where=server.url.render_as_string(hide_password=True),
                remedy="Give the role the right (`ALTER ROLE … CREATEDB`), or name another server with --server.",
            ) from None
        scratch = open_engine(server.url.set(database=name).render_as_string(hide_password=False))
        try:
            connection.exec_driver_sql(f"COMMENT ON DATABASE {quoted} IS '{_MARK}'")
            yield scratch
        finally:
            scratch.dispose()
            connection.exec_driver_sql(f"DROP DATABASE {quoted} WITH (FORCE)")


def _drop_left(connection: sa.Connection, name: str, quoted: str) -> None:
    """Drop the database that a killed process made. The lock is held until the connection closes."""
    if not connection.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK_KEY}).scalar_one():
        raise StateError("another verification runs on this server", remedy="Wait for its end.")
    statement = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = :name"
    found = connection.execute(sa.text(statement), {"name": name}).first()
    if found is not None and found[0] != _MARK:
        raise StateError(
            f"the server has a database {name} already, which was not made for a verification",
            remedy="Rename it, or name another server with --server.",
        )
    if found is not None:
        connection.exec_driver_sql(f"DROP DATABASE {quoted} WITH (FORCE)")


def restore(content: IO[bytes], scratch: sa.Engine, tables: int, report: Report) -> None:
    """Restore a dump into an empty database.

    Args:
        content: The dump.
        scratch: The database.
        tables: Number of tables of the dump.
        report: Called with the number of tables whose rows are being restored, and of all.

    Raises:
        ConfigError: pg_restore is not installed, or is older than the server.
        PostroadError: pg_restore failed.
    """
    with read(scratch) as connection:
        raw = _driver(connection)
        program = require_program("pg_restore", raw.info.server_version // 10_000)
        environment = _environment(raw)
        database = psycopg.conninfo.make_conninfo(dbname=raw.info.dbname)
    words = [program, "--no-owner", "--no-privileges", "--verbose", "--no-password", f"--dbname={database}"]
    tool = _Tool(words, environment, "processing data for table", lambda done: report(done, tables))
    with tool.running(stdin=subprocess.PIPE) as process:
        assert process.stdin is not None  # noqa: S101  (a pipe)
        with suppress(BrokenPipeError):  # It ended early, and its status and errors show why.
            shutil.copyfileobj(content, process.stdin, CHUNK)
        with suppress(BrokenPipeError):
            process.stdin.close()
    if tool.status != 0 and (tool.errors or not tool.harmless):
        raise PostroadError(
            f"the backup cannot be restored: {tool.reason}",
            remedy="If the server has too little space or is too old, name another one with --server.",
        )


def _driver(connection: sa.Connection) -> psycopg.Connection[Any]:
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)  # noqa: S101  (connected)
    return raw


def _environment(raw: psycopg.Connection[Any]) -> Mapping[str, str]:
    """Return the variables by which a client program connects as an open connection did, to the same host."""
    environment = {**os.environ, "LC_ALL": "C"}
    for option in raw.pgconn.info:
        if option.envvar and option.val:
            environment[option.envvar.decode()] = option.val.decode()
    environment.pop("PGSERVICE", None)  # It would precede the other variables, which have its content already.
    environment |= {"PGHOST": raw.info.host, "PGPORT": str(raw.info.port)}
    if "PGHOSTADDR" in environment:
        environment["PGHOSTADDR"] = raw.info.hostaddr
    return environment


class _Tool:
    """A client program, whose standard error says how far it is and what failed."""

    def __init__(
        self, words: list[str], environment: Mapping[str, str], progress: str, report: Callable[[int], None]
    ) -> None:
        self._words = words
        self._environment = environment
        self._progress = progress
        self._report = report
        self.status = 0
        self.errors: list[str] = []
        self.harmless = False

    @property
    def reason(self) -> str:
        """The first errors of the program."""
        return "; ".join(self.errors) or f"it ended with status {self.status}"

    @contextmanager
    def running(self, **pipes: int) -> Iterator[subprocess.Popen[bytes]]:
        """Run the program until the block and the program end. It is killed if the block raises."""
        process = subprocess.Popen(self._words, env=self._environment, stderr=subprocess.PIPE, **pipes)  # type: ignore[call-overload]
        with process:
            reading = Thread(target=self._follow, args=(process.stderr,), daemon=True)
            reading.start()
            try:
                yield process
                self.status = process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                reading.join()

    def _follow(self, stderr: IO[bytes]) -> None:
        started = 0
        for line in stderr:
            text = line.decode("utf-8", "replace").rstrip()
            _, marked, error = text.partition(": error: ")
            if self._progress in text:
                started += 1
                self._report(started)
            elif marked and _HARMLESS in error:
                self.harmless = True
            elif marked and len(self.errors) < _MAX_ERRORS:
                self.errors.append(error)
