"""postroad backup: copies of the database that can be restored."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.app.context import database_url, generated_key, known_secret_keys
from postroad.cli.output import JsonOption, print_json, print_line, print_warning, progress_bars
from postroad.cli.signals import exit_on_sigterm
from postroad.errors import PostroadError, UsageError
from postroad.printable import counted
from postroad.settings import Settings
from postroad.store.engine import open_engine

if TYPE_CHECKING:
    from postroad.backup.verify import VerifiedBackup

app = typer.Typer(help="Backups of the database: make them, and verify them.", no_args_is_help=True)

_SHOWN = 5
"""Largest number of differences that an error lists."""


@app.command("create")
def create(
    target: Annotated[
        Path, typer.Argument(metavar="FILE|FOLDER", help="File to write, or a folder for a file named by the time.")
    ],
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Leave out the secret key of the state folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Back up the database while mail is being sent.

    The file contains personal data and, if Postroad generated it, the secret key: only its owner can read it. It
    appears when it is complete. PostgreSQL needs pg_dump. The queue is not included: `postroad queue rebuild`.
    """
    from postroad.backup.create import SecretKeys
    from postroad.backup.create import create as write_backup

    settings = Settings.load()
    keys = SecretKeys(ring=_ring(settings), generated=None if without_key else generated_key(settings))
    engine = open_engine(database_url(settings))
    try:
        with exit_on_sigterm(), progress_bars(quiet=as_json) as report:
            made = write_backup(engine, target, keys, datetime.now(UTC), report)
    finally:
        engine.dispose()
    if as_json:
        print_json({"file": str(made.file), "bytes": made.bytes, "manifest": _plain(made.manifest)})
        return
    rows = made.manifest.sums.rows
    print_line(
        f"{made.file}: {made.bytes / 1e6:,.1f} MB, revision {made.manifest.revision}, "
        f"{counted(rows.get('recipient', 0), 'recipient')}, {counted(rows.get('touch', 0), 'touch', 'touches')}, "
        f"{counted(rows.get('suppression', 0), 'suppression')}"
    )


@app.command("verify")
def verify(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE|FOLDER", exists=True, help="The backup, or a folder, for the newest one in it."),
    ],
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="PostgreSQL server to restore on; the password in ~/.pgpass or PGPASSWORD; unset: `database_url`.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup into an empty database, and compare the restored ledger with the manifest.

    On PostgreSQL a database is made for it and dropped at the end. SQLite is restored in the temporary folder.
    """
    from postroad.backup.create import newest_backup
    from postroad.backup.verify import KeyPlace
    from postroad.backup.verify import verify as restore_and_compare

    settings = Settings.load()
    ours = None if settings.database_url is None else database_url(settings)
    url = ours if server is None else _server_url(server)
    with exit_on_sigterm(), progress_bars(quiet=as_json) as report:
        done = restore_and_compare(newest_backup(file), url, _ring(settings), report)
    manifest = done.manifest
    if as_json:
        result = {"file": str(done.file), "verified": not done.differences, "differences": done.differences}
        print_json({**result, "key": done.key, "manifest": _plain(manifest)})
    if done.differences:
        raise _difference(done)
    if not as_json:
        print_line(
            f"{done.file}: restored and equal to its manifest of {manifest.created_at:%Y-%m-%d %H:%M} UTC, "
            f"revision {manifest.revision}"
        )
    if done.key is KeyPlace.MISSING and not as_json:
        print_warning("the secret key is neither in this backup nor in these settings: keep it, or links in mail break")


def _difference(done: VerifiedBackup) -> PostroadError:
    more = len(done.differences) - _SHOWN
    named = "; ".join(done.differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return PostroadError(
        f"the restored database differs: {named}",
        where=str(done.file),
        remedy="Do not rely on this backup: make another one, and verify it.",
    )


def _server_url(text: str) -> str:
    """Return the URL of the option. Raises UsageError if it is not one of PostgreSQL, or has a password."""
    import sqlalchemy as sa

    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        url = None
    if url is None or url.get_backend_name() not in ("postgresql", "postgres"):
        raise UsageError("--server is not the URL of a PostgreSQL server", remedy="Write postgresql://user@host/name.")
    if url.password is not None:
        raise UsageError(
            "--server has a password, which other users of this machine can see",
            remedy="Put it into ~/.pgpass or the variable PGPASSWORD.",
        )
    return text


def _ring(settings: Settings) -> list[str]:
    return [key.get_secret_value() for key in known_secret_keys(settings)]


def _plain(value: object) -> object:
    import msgspec

    return msgspec.to_builtins(value)
