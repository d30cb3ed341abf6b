"""The databases that a benchmark runs on: SQLite, the default, and PostgreSQL where its programs are installed."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.contestants import DidNotRun
from postroad.store import migrate
from postroad.store.engine import open_engine

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
_START_S = 30.0


@asynccontextmanager
async def running_postgresql() -> AsyncIterator[str]:
    """Start a server with its own defaults, fsync on; yields the URL of an empty database. Raises DidNotRun."""
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="pr-pg-") as folder:
        user = _not_root(Path(folder))
        data = f"{folder}/data"
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        initdb = await asyncio.create_subprocess_exec(
            str(programs / "initdb"),
            f"--pgdata={data}",
            *options,
            stdout=asyncio.subprocess.DEVNULL,
            cwd=folder,
            **user,
        )
        if await initdb.wait():
            raise DidNotRun("initdb failed")
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
        server = await asyncio.create_subprocess_exec(
            str(programs / "postgres"), "-D", data, *settings, stderr=asyncio.subprocess.DEVNULL, cwd=folder, **user
        )
        try:
            url = f"postgresql://postgres@/postgres?host={folder}"
            await _wait_ready(url, server)
            yield url
        finally:
            if server.returncode is None:
                server.terminate()
                await server.wait()


def make_empty(url: str) -> None:
    """Drop all that a database holds, and make the tables of this version."""
    engine = open_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
        migrate.upgrade(engine)
    finally:
        engine.dispose()


def _not_root(folder: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    # PostgreSQL refuses to run as root.
    account = pwd.getpwnam("nobody")
    os.chown(folder, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _programs() -> Path:
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
    raise DidNotRun("no PostgreSQL server here: neither in /usr/lib/postgresql nor on the PATH")


async def _wait_ready(url: str, server: asyncio.subprocess.Process) -> None:
    engine = open_engine(url)
    try:
        async with asyncio.timeout(_START_S):
            while server.returncode is None:
                try:
                    with engine.connect():
                        return
                except sa.exc.OperationalError:
                    await asyncio.sleep(0.05)
        raise DidNotRun("PostgreSQL ended at its start")
    finally:
        engine.dispose()
