"""Imports a CSV into an audience in slices, each in one transaction that also stores the cursor.

An interrupted import resumes at its cursor, and a file that was imported is not imported again. Both apply only if no
other import changed recipients since. Otherwise a file is imported from its first row, so that its values are current.
Every row ends as exactly one of imported, duplicate and refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Session, col, select

from postroad.campaign.csv_check import CsvSummary, check_csv, require_unchanged
from postroad.campaign.csv_file import FilePosition, open_csv
from postroad.campaign.file_access import FileRules
from postroad.campaign.intake import NO_TYPES, ValidatedRows, validate_rows
from postroad.campaign.steps import NAME_PATTERN
from postroad.errors import DataError, StateError, UsageError
from postroad.field_types import FieldType
from postroad.store.engine import read, write
from postroad.store.recipient import (
    Audience,
    AudienceImport,
    ImportRef,
    Refusal,
    acquire_import_lock,
    find_audience,
    mark_overtaken,
    upsert_recipients,
)
from postroad.store.types import UtcDateTime

SLICE_ROWS = 5_000
STEP_ROWS = 1_000
"""Rows that one transaction imports."""


@dataclass(frozen=True, kw_only=True)
class ImportProgress:
    """Progress of an import. ``imported + duplicates + refused == rows_done``.

    ``already``: an earlier import of the same file is complete, and no other import changed recipients since.
    """

    import_id: int
    audience: str
    path: str
    rows_total: int
    rows_done: int
    cursor: int
    imported: int
    duplicates: int
    refused: int
    finished: bool
    already: bool = field(default=False, compare=False)


def open_audience(connection: sa.Connection, name: str, now: datetime) -> int:
    """Return the id of the audience with this name, which is created if it does not exist."""
    connection.execute(
        sa.text(
            "INSERT INTO audience (name, created_at) VALUES (:name, :now) ON CONFLICT (name) DO NOTHING"
        ).bindparams(sa.bindparam("now", type_=UtcDateTime())),
        {"name": name, "now": now},
    )
    return int(connection.execute(sa.text("SELECT id FROM audience WHERE name = :name"), {"name": name}).scalar_one())


def open_import(
    engine: sa.Engine,
    audience: str,
    path: Path,
    now: datetime,
    progress: Callable[[int], None] | None = None,
    rules: FileRules | None = None,
) -> ImportProgress:
    """Check a whole file, then begin its import, or find the import that was begun before.

    Args:
        engine: Database of the audiences.
        audience: Name of the audience; it is created if it does not exist.
        path: The CSV.
        now: The time.
        progress: Called with the number of bytes read while the file is checked.
        rules: Folders that the file may be in. None: any, because the operator named the file.

    Returns:
        The progress of the import.

    Raises:
        DataError: The file cannot be read or is not a CSV of recipients. Nothing is stored.
        UsageError: The name of the audience is not valid in a campaign.yaml.
    """
    if not re.fullmatch(NAME_PATTERN, audience):
        raise UsageError(
            f"an audience cannot be called {audience!r}",
            remedy="Use at most 64 lower case letters, digits, hyphens and underscores. The first must be a letter or "
            "a digit.",
        )
    return _begin(engine, audience, path.resolve(), check_csv(path, progress, rules), now)


def _begin(engine: sa.Engine, audience: str, path: Path, file: CsvSummary, now: datetime) -> ImportProgress:
    with write(engine) as connection:
        audience_id = open_audience(connection, audience, now)
        values = {
            "audience_id": audience_id,
            "path": str(path),
            "sha256": file.sha256,
            "rows": file.rows,
            "now": now,
        }
        import_id = int(connection.execute(_OPEN, values).scalar_one())
        connection.execute(_END_OVERTAKEN, {**values, "id": import_id})
        progress = _progress(connection, import_id)
    return replace(progress, already=progress.finished)


_OPEN = sa.text(
    "INSERT INTO audience_import (audience_id, path, sha256, current_key, rows_total, cursor, line, rows_done, "
    "imported, duplicates, refused, started_at) "
    "VALUES (:audience_id, :path, :sha256, :sha256, :rows, 0, 1, 0, 0, 0, 0, :now) "
    "ON CONFLICT (audience_id, current_key) DO UPDATE SET path = excluded.path RETURNING id"
).bindparams(sa.bindparam("now", type_=UtcDateTime()))

_END_OVERTAKEN = sa.text(
    "UPDATE audience_import SET finished_at = :now WHERE audience_id = :audience_id AND sha256 = :sha256 "
    "AND id <> :id AND finished_at IS NULL"
).bindparams(sa.bindparam("now", type_=UtcDateTime()))


def _progress(connection: sa.Connection, import_id: int) -> ImportProgress:
    session = Session(connection)
    row = session.exec(
        select(AudienceImport, Audience.name).where(
            AudienceImport.id == import_id, col(Audience.id) == col(AudienceImport.audience_id)
        )
    ).one_or_none()
    if row is None:
        raise StateError(f"there is no import number {import_id}")
    state, audience = row
    return ImportProgress(
        import_id=import_id,
        audience=audience,
        path=state.path,
        rows_total=state.rows_total,
        rows_done=state.rows_done,
        cursor=state.cursor,
        imported=state.imported,
        duplicates=state.duplicates,
        refused=state.refused,
        finished=state.finished_at is not None,
    )


def import_progress(engine: sa.Engine, import_id: int) -> ImportProgress:
    """Return the progress of an import."""
    with read(engine) as connection:
        return _progress(connection, import_id)


def import_slice(
    engine: sa.Engine,
    import_id: int,
    now: datetime,
    rows: int = SLICE_ROWS,
    rules: FileRules | None = None,
    types: Mapping[str, FieldType] = NO_TYPES,
) -> ImportProgress:
    """Import the next rows of a file in transactions of `STEP_ROWS` rows, and advance its cursor.

    Args:
        engine: Database of the audiences.
        import_id: The import, from `open_import`.
        now: The time.
        rows: Number of rows to import.
        rules: Folders that the file may be in. None: any, because the operator named the file.
        types: Declared types of merge fields. Rows with other values are refused.

    Returns:
        The progress of the import.

    Raises:
        DataError: The file changed since it was checked.
    """
    left = rows
    while True:
        progress, imported = _import_step(engine, import_id, now, min(left, STEP_ROWS), rules, types)
        left -= imported
        if progress.finished or left <= 0:
            return progress


def _import_step(
    engine: sa.Engine,
    import_id: int,
    now: datetime,
    rows: int,
    rules: FileRules | None,
    types: Mapping[str, FieldType],
) -> tuple[ImportProgress, int]:
    """Import up to ``rows`` rows in one transaction. Return the progress and the number of rows of this step.

    The file is read before the transaction begins.

    Returns:
        The progress, and the number of rows.

    Raises:
        DataError: The file changed since it was checked.
    """
    with read(engine) as connection:
        state = Session(connection).get(AudienceImport, import_id)
        if state is None or state.finished_at is not None:
            return _progress(connection, import_id), 0
    path = Path(state.path)
    require_unchanged(path, state.sha256, state.started_at)
    start = FilePosition(state.cursor, state.line) if state.cursor else None
    with open_csv(path, start=start, rules=rules) as file:
        validated = validate_rows(file.columns, islice(file, rows), types)
        position = file.position
    done = state.rows_done + validated.rows
    if not validated.rows and done != state.rows_total:
        raise DataError(
            f"the file changed while it was imported: row {done} of {state.rows_total} is its last now",
            where=str(path),
            remedy="Import it again: its current content is imported from the first line.",
        )
    with write(engine) as connection:
        acquire_import_lock(connection)
        current = connection.execute(
            sa.select(col(AudienceImport.rows_done)).where(col(AudienceImport.id) == import_id).with_for_update()
        ).scalar_one()
        if current != state.rows_done:  # Another process has imported these rows. Continue with the next ones.
            return _progress(connection, import_id), 0
        _store_rows(connection, state, validated, position, now)
        return _progress(connection, import_id), validated.rows


def _store_rows(
    connection: sa.Connection, state: AudienceImport, validated: ValidatedRows, position: FilePosition, now: datetime
) -> None:
    """Store valid and refused rows of an import, and advance its cursor to ``position``."""
    assert state.id is not None  # noqa: S101  (read from its table)
    done = state.rows_done + validated.rows
    imported = upsert_recipients(connection, validated.taken, ImportRef(state.audience_id, state.id), now)
    if validated.refused:
        refused = [{"import_id": state.id, **row._asdict()} for row in validated.refused]
        connection.execute(sa.insert(Refusal), refused)
    values = {
        "cursor": position.cursor,
        "line": position.line,
        "rows_done": done,
        "imported": state.imported + imported,
        "duplicates": state.duplicates + validated.rows - len(validated.refused) - imported,
        "refused": state.refused + len(validated.refused),
        "finished_at": now if done >= state.rows_total else None,
    }
    connection.execute(sa.update(AudienceImport).where(col(AudienceImport.id) == state.id).values(**values))
    if validated.rows:
        mark_overtaken(connection, state.id)


def import_file(
    engine: sa.Engine,
    audience: str,
    path: Path,
    now: datetime,
    *,
    types: Mapping[str, FieldType] = NO_TYPES,
    checked: Callable[[int], None] | None = None,
    report: Callable[[ImportProgress], None] | None = None,
) -> ImportProgress:
    """Import a whole file, slice by slice.

    Args:
        engine: Database of the audiences.
        audience: Name of the audience; it is created if it does not exist.
        path: The CSV.
        now: The time.
        types: Declared types of merge fields. Rows with other values are refused.
        checked: Called with the number of bytes read while the file is checked.
        report: Called with the progress after each slice.

    Returns:
        The progress at the end.
    """
    progress = open_import(engine, audience, path, now, checked)
    while not progress.finished:
        progress = import_slice(engine, progress.import_id, now, types=types)
        if report is not None:
            report(progress)
    return progress


def abandon_imports(engine: sa.Engine, audience: str, now: datetime) -> int:
    """End the interrupted imports of an audience. Recipients that were imported stay.

    If the same file is imported again, the import starts at the first row.

    Args:
        engine: Database of the audiences.
        audience: Name of the audience.
        now: The time.

    Returns:
        The number of imports that were ended.

    Raises:
        StateError: The audience does not exist.
    """
    with write(engine) as connection:
        statement = sa.text(
            "UPDATE audience_import SET finished_at = :now, current_key = '#' || id "
            "WHERE audience_id = :id AND finished_at IS NULL"
        ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
        return connection.execute(statement, {"id": find_audience(connection, audience), "now": now}).rowcount


def refusals(engine: sa.Engine, import_id: int, limit: int = 1000) -> list[Refusal]:
    """Return the refused rows of an import, in the order of the file."""
    with read(engine) as connection:
        session = Session(connection)
        rows = list(
            session.exec(select(Refusal).where(Refusal.import_id == import_id).order_by(col(Refusal.line)).limit(limit))
        )
        session.expunge_all()
        return rows
