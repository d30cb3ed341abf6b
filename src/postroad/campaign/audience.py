"""From a CSV to an audience: slice by slice, each in one transaction with the cursor that it ends at.

An import that was interrupted continues where it stopped, and a file that was imported is not imported again. Both hold
while no other import changed recipients since; after one, a file is imported from its first row, so that its values
count. Every row ends in exactly one of imported, duplicate and refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Session, col, select

from postroad.campaign.csv_file import CsvSummary, FilePosition, check_csv, open_csv, open_file, require_unchanged
from postroad.campaign.definition import NAME_PATTERN
from postroad.campaign.intake import judge
from postroad.campaign.reading import FileRules
from postroad.errors import DataError, StateError, UsageError
from postroad.store.campaign import find_campaign
from postroad.store.engine import read, write
from postroad.store.recipient import (
    Audience,
    AudienceImport,
    ImportRef,
    Refusal,
    find_audience,
    mark_overtaken,
    one_import_at_a_time,
    take_in,
)
from postroad.store.types import UtcDateTime

SLICE_ROWS = 5_000
STEP_ROWS = 1_000
"""Rows that one transaction imports."""


@dataclass(frozen=True, kw_only=True)
class ImportProgress:
    """How far an import is. ``imported + duplicates + refused == rows_done``.

    ``already``: an earlier import of the same file did it all, and no other changed recipients since.
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
    """Id of the audience of this name, which is made if it is not there."""
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
    """Check a whole file, then begin its import, or find the one begun before.

    ``rules``: where the file may be; None: anywhere, as the operator named it.
    Raises DataError for the file, UsageError for a name that no campaign.yaml could have, and then keeps nothing.
    """
    if not re.fullmatch(NAME_PATTERN, audience):
        raise UsageError(
            f"an audience cannot be called {audience!r}",
            remedy="Use at most 64 lower case letters, digits, hyphens and underscores, the first no sign.",
        )
    facts = check_csv(path, progress, rules)
    return _begin(engine, audience, path.resolve(), facts, now)


def _begin(engine: sa.Engine, audience: str, path: Path, facts: CsvSummary, now: datetime) -> ImportProgress:
    with write(engine) as connection:
        audience_id = open_audience(connection, audience, now)
        values = {
            "audience_id": audience_id,
            "path": str(path),
            "sha256": facts.sha256,
            "rows": facts.rows,
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
    found = session.exec(
        select(AudienceImport, Audience.name).where(
            AudienceImport.id == import_id, col(Audience.id) == col(AudienceImport.audience_id)
        )
    ).one_or_none()
    if found is None:
        raise StateError(f"there is no import number {import_id}")
    state, audience = found
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
    """How far an import is."""
    with read(engine) as connection:
        return _progress(connection, import_id)


def import_slice(
    engine: sa.Engine, import_id: int, now: datetime, rows: int = SLICE_ROWS, rules: FileRules | None = None
) -> ImportProgress:
    """Import the next rows of a file, and move its cursor, in transactions of a thousand rows.

    Raises DataError when the file is no longer the one that was checked.
    """
    left = rows
    while True:
        progress, imported = _import_step(engine, import_id, now, min(left, STEP_ROWS), rules)
        left -= imported
        if progress.finished or left <= 0:
            return progress


def _import_step(
    engine: sa.Engine, import_id: int, now: datetime, rows: int, rules: FileRules | None
) -> tuple[ImportProgress, int]:
    """Returns how far the import is, and how many rows this step imported. The file is read before the transaction."""
    with read(engine) as connection:
        state = Session(connection).get(AudienceImport, import_id)
        if state is None or state.finished_at is not None:
            return _progress(connection, import_id), 0
    path = Path(state.path)
    require_unchanged(path, state.sha256, state.started_at)
    start = FilePosition(state.cursor, state.line) if state.cursor else None
    with open_csv(path, start=start, rules=rules) as file:
        judged = judge(file.columns, islice(file, rows))
        place = file.place
    done = state.rows_done + judged.rows
    if not judged.rows and done != state.rows_total:
        raise DataError(
            f"the file changed while it was imported: row {done} of {state.rows_total} is its last now",
            where=str(path),
            remedy="Import it again: what it says now counts from its first line.",
        )
    with write(engine) as connection:
        one_import_at_a_time(connection)
        current = connection.execute(
            sa.select(col(AudienceImport.rows_done)).where(col(AudienceImport.id) == import_id).with_for_update()
        ).scalar_one()
        if current != state.rows_done:  # Another process was faster with these rows: the next ones are ours.
            return _progress(connection, import_id), 0
        imported = take_in(connection, judged.taken, ImportRef(state.audience_id, import_id), now)
        if judged.refused:
            rejected = [{"import_id": import_id, **row._asdict()} for row in judged.refused]
            connection.execute(sa.insert(Refusal), rejected)
        values = {
            "cursor": place.cursor,
            "line": place.line,
            "rows_done": done,
            "imported": state.imported + imported,
            "duplicates": state.duplicates + judged.rows - len(judged.refused) - imported,
            "refused": state.refused + len(judged.refused),
            "finished_at": now if done >= state.rows_total else None,
        }
        connection.execute(sa.update(AudienceImport).where(col(AudienceImport.id) == import_id).values(**values))
        if judged.rows:
            mark_overtaken(connection, import_id)
        return _progress(connection, import_id), judged.rows


def import_file(
    engine: sa.Engine,
    audience: str,
    path: Path,
    now: datetime,
    *,
    checked: Callable[[int], None] | None = None,
    report: Callable[[ImportProgress], None] | None = None,
) -> ImportProgress:
    """Import all of a file, a slice at a time. Calls checked with bytes while it is checked, then report."""
    progress = open_import(engine, audience, path, now, checked)
    while not progress.finished:
        progress = import_slice(engine, progress.import_id, now)
        if report is not None:
            report(progress)
    return progress


@dataclass(frozen=True, kw_only=True)
class AudienceFile:
    """The file that fills the audience of a campaign.

    ``to_import``: the launch imports it. It does not where all of it was imported already, and then ``overtaken`` is
    whether another import changed recipients since.
    """

    audience: str
    path: Path
    to_import: bool
    overtaken: bool = False

    @property
    def why_not(self) -> str:
        """Why a launch does not import the file again, in words."""
        since = "; another file changed recipients since, and its values stay" if self.overtaken else ""
        return (
            f"{self.path} was imported before and is not imported again{since}. "
            f"`postroad audience import {self.audience} FILE` applies it again."
        )


def audience_file(engine: sa.Engine, campaign: str) -> AudienceFile | None:
    """Return the file that a campaign names for its audience, and whether a launch imports it.

    A launch imports what the file holds now once: what somebody imported from another file since stays in force.
    None: the campaign names no file, or the audience is frozen already, so that an import would change nothing.
    """
    with read(engine) as connection:
        found = find_campaign(connection, campaign)
        if found.audience_file is None or found.launched_at is not None or found.freezing_at is not None:
            return None
        name = connection.execute(
            sa.text("SELECT name FROM audience WHERE id = :id"), {"id": found.audience_id}
        ).scalar_one()
        path = Path(found.audience_file)
        with open_file(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        values = {"id": found.audience_id, "path": str(path.resolve()), "sha256": digest}
        finished = connection.execute(_CURRENT, values).scalar()
        last = connection.execute(_LAST_OF_PATH, values).scalar()
    done = finished if finished is not None else last == digest
    return AudienceFile(audience=name, path=path, to_import=not done, overtaken=bool(done) and finished is None)


_CURRENT = sa.text(
    "SELECT finished_at IS NOT NULL FROM audience_import WHERE audience_id = :id AND current_key = :sha256"
)
_LAST_OF_PATH = sa.text(
    "SELECT CASE WHEN finished_at IS NOT NULL THEN sha256 END FROM audience_import "
    "WHERE audience_id = :id AND path = :path ORDER BY id DESC LIMIT 1"
)


def file_to_import(engine: sa.Engine, campaign: str) -> AudienceFile | None:
    """Return the file that the launch of a campaign imports, or None."""
    file = audience_file(engine, campaign)
    return file if file is not None and file.to_import else None


def abandon_imports(engine: sa.Engine, audience: str, now: datetime) -> int:
    """End the imports of an audience that were interrupted. Recipients that were imported stay.

    The same file imported again starts from its first row. Returns how many imports ended. Raises StateError when there
    is no audience of that name.
    """
    with write(engine) as connection:
        statement = sa.text(
            "UPDATE audience_import SET finished_at = :now, current_key = '#' || id "
            "WHERE audience_id = :id AND finished_at IS NULL"
        ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
        return connection.execute(statement, {"id": find_audience(connection, audience), "now": now}).rowcount


def refusals(engine: sa.Engine, import_id: int, limit: int = 1000) -> list[Refusal]:
    """Rows of a file that were refused, in its order."""
    with read(engine) as connection:
        session = Session(connection)
        found = list(
            session.exec(select(Refusal).where(Refusal.import_id == import_id).order_by(col(Refusal.line)).limit(limit))
        )
        session.expunge_all()
        return found
