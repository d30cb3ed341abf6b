"""From a CSV to an audience: slice by slice, each in one transaction with the cursor that it ends at.

An import that is cut short goes on where it stopped; one that is done again changes nothing. Every row ends in exactly
one of imported, duplicate and refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import sqlalchemy as sa
from sqlmodel import Session, col, select

from postroad.campaign.csv_file import ADDRESS, TIME_ZONE, CsvRow, check_csv, read_rows, require_unchanged
from postroad.campaign.definition import NAME_PATTERN
from postroad.errors import DataError, StateError, UsageError
from postroad.mail.address import domain_of, normalise_address
from postroad.store.bulk import json_rows
from postroad.store.campaign import find_campaign
from postroad.store.engine import read, write
from postroad.store.recipient import Audience, AudienceImport, Refusal
from postroad.store.types import UtcDateTime

SLICE_ROWS = 5_000


@dataclass(frozen=True, kw_only=True)
class ImportProgress:
    """How far an import is. ``imported + duplicates + refused == rows_done``."""

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
) -> ImportProgress:
    """Check a whole file, then begin its import, or find the one begun before.

    Raises DataError for the file, UsageError for a name that no campaign.yaml could have, and then keeps nothing.
    """
    if not re.fullmatch(NAME_PATTERN, audience):
        raise UsageError(
            f"an audience cannot be called {audience!r}",
            remedy="Use at most 64 lower case letters, digits, hyphens and underscores, the first no sign.",
        )
    facts = check_csv(path, progress)
    with write(engine) as connection:
        audience_id = open_audience(connection, audience, now)
        statement = sa.text(
            "INSERT INTO audience_import (audience_id, path, sha256, rows_total, cursor, line, rows_done, imported, "
            "duplicates, refused, started_at) VALUES (:audience_id, :path, :sha256, :rows, 0, 1, 0, 0, 0, 0, :now) "
            "ON CONFLICT (audience_id, sha256) DO UPDATE SET path = excluded.path RETURNING id"
        ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
        values = {
            "audience_id": audience_id,
            "path": str(path.resolve()),
            "sha256": facts.sha256,
            "rows": facts.rows,
            "now": now,
        }
        import_id = int(connection.execute(statement, values).scalar_one())
        return _progress(connection, import_id)


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


def import_slice(engine: sa.Engine, import_id: int, now: datetime, rows: int = SLICE_ROWS) -> ImportProgress:
    """Import the next rows of a file, and move its cursor, in one transaction.

    Raises DataError when the file is no longer the one that was checked.
    """
    with write(engine) as connection:
        state = (
            Session(connection)
            .exec(select(AudienceImport).where(AudienceImport.id == import_id).with_for_update())
            .one_or_none()
        )
        if state is None or state.finished_at is not None:
            return _progress(connection, import_id)
        path = Path(state.path)
        require_unchanged(path, state.sha256, state.started_at)
        columns, reader = read_rows(path, cursor=state.cursor, line=state.line)
        batch = [row for row, _ in zip(reader, range(rows), strict=False)]
        taken, refusals = _judge(columns, batch)
        imported = _upsert(connection, state, taken, now) if taken else 0
        if refusals:
            connection.execute(sa.insert(Refusal), [{"import_id": import_id, **refusal} for refusal in refusals])
        done = state.rows_done + len(batch)
        if not batch and done != state.rows_total:
            raise DataError(
                f"the file changed while it was imported: row {done} of {state.rows_total} is its last now",
                where=str(path),
                remedy="Import it again: what it says now counts from its first line.",
            )
        values = {
            "cursor": batch[-1].next_cursor if batch else state.cursor,
            "line": batch[-1].next_line if batch else state.line,
            "rows_done": done,
            "imported": state.imported + imported,
            "duplicates": state.duplicates + len(batch) - len(refusals) - imported,
            "refused": state.refused + len(refusals),
            "finished_at": now if done >= state.rows_total else None,
        }
        connection.execute(sa.update(AudienceImport).where(col(AudienceImport.id) == import_id).values(**values))
        return _progress(connection, import_id)


def _judge(columns: tuple[str, ...], rows: list[CsvRow]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Part the rows of a slice into recipients, one for each address, and refusals."""
    address_at = columns.index(ADDRESS)
    zone_at = columns.index(TIME_ZONE) if TIME_ZONE in columns else None
    attribute_at = [(i, name) for i, name in enumerate(columns) if i not in (address_at, zone_at)]
    zones = _zones() if zone_at is not None else frozenset()
    taken: dict[str, dict[str, Any]] = {}
    refusals: list[dict[str, Any]] = []
    for row in rows:
        fields = row.fields
        try:
            address = normalise_address(fields[address_at])
        except DataError as error:
            refusals.append(_refusal(row, ADDRESS, fields[address_at], error.message))
            continue
        zone = fields[zone_at].strip() if zone_at is not None else ""
        if zone and zone not in zones:
            refusals.append(_refusal(row, TIME_ZONE, zone, "it is no time zone of the IANA database"))
            continue
        attributes = {name: value for i, name in attribute_at if (value := fields[i].strip())}
        earlier = taken.get(address)
        if earlier is not None:  # Rows of one address merge as they would in slices of their own.
            zone = zone or earlier["time_zone"]
            attributes = {**earlier["attributes"], **attributes}
        taken[address] = {
            "address": address,
            "domain": domain_of(address),
            "time_zone": zone or None,
            "attributes": attributes,
        }
    # In order: two imports that have the same addresses wait for each other, and never each for the other.
    return [taken[address] for address in sorted(taken)], refusals


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())  # It walks through a folder of some six hundred files.


def _refusal(row: CsvRow, field: str, value: str, reason: str) -> dict[str, Any]:
    return {"line": row.line, "field": field, "value": value[:320], "reason": reason[:200]}


_COLUMNS = {"address": sa.Text(), "domain": sa.Text(), "time_zone": sa.Text()}


def _upsert(connection: sa.Connection, state: AudienceImport, rows: list[dict[str, Any]], now: datetime) -> int:
    """Put recipients into their table and the audience. Returns how many this import had not brought before."""
    postgresql = connection.dialect.name == "postgresql"
    columns = {**_COLUMNS, "attributes": sa.dialects.postgresql.JSONB() if postgresql else sa.JSON()}
    new, parameters = json_rows(connection, "new", columns, rows)
    # Merge fields known from elsewhere stay, and the newer file's value wins.
    merged = (
        "recipient.attributes || excluded.attributes"
        if postgresql
        else "json_patch(recipient.attributes, excluded.attributes)"
    )
    recipients = sa.text(
        "INSERT INTO recipient (address, domain, time_zone, attributes, created_at) "
        f"SELECT new.address, new.domain, new.time_zone, new.attributes, :now FROM {new} WHERE true "
        "ON CONFLICT (address) DO UPDATE SET "
        f"time_zone = COALESCE(excluded.time_zone, recipient.time_zone), attributes = {merged} "
        "RETURNING id"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    ids = connection.execute(recipients, {"now": now, **parameters}).scalars()
    member, parameters = json_rows(connection, "new", {"id": sa.BigInteger()}, [{"id": id_} for id_ in ids])
    members = sa.text(
        "INSERT INTO audience_member (audience_id, recipient_id, import_id) "
        f"SELECT :audience_id, new.id, :import_id FROM {member} WHERE true "
        "ON CONFLICT (audience_id, recipient_id) DO UPDATE SET import_id = excluded.import_id "
        "WHERE audience_member.import_id <> excluded.import_id"
    )
    values = {"audience_id": state.audience_id, "import_id": state.id, **parameters}
    return connection.execute(members, values).rowcount


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
    """The file that fills the audience of a campaign."""

    audience: str
    path: Path


def file_to_import(engine: sa.Engine, campaign: str) -> AudienceFile | None:
    """Return the file that a campaign names for its audience.

    None: it names none, all of it was imported, or the audience is frozen already, so that it would change nothing.
    """
    with read(engine) as connection:
        found = find_campaign(connection, campaign)
        if found.audience_file is None or found.launched_at is not None:
            return None
        name = connection.execute(
            sa.text("SELECT name FROM audience WHERE id = :id"), {"id": found.audience_id}
        ).scalar_one()
        path = Path(found.audience_file)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None
        finished = connection.execute(
            sa.text(
                "SELECT 1 FROM audience_import WHERE audience_id = :id AND sha256 = :sha256 AND finished_at IS NOT NULL"
            ),
            {"id": found.audience_id, "sha256": digest},
        ).scalar()
    return None if finished else AudienceFile(audience=name, path=path)


def abandon_imports(engine: sa.Engine, audience: str, now: datetime) -> int:
    """End the imports of an audience that were cut short: who came in stays, the rest is not expected any more.

    Returns how many. Raises StateError when there is no audience of that name.
    """
    with write(engine) as connection:
        audience_id = connection.execute(
            sa.text("SELECT id FROM audience WHERE name = :name"), {"name": audience}
        ).scalar()
        if audience_id is None:
            raise StateError(f"there is no audience named {audience!r}", remedy="`postroad audience list` names them.")
        unfinished = (col(AudienceImport.audience_id) == audience_id, col(AudienceImport.finished_at).is_(None))
        return connection.execute(sa.update(AudienceImport).where(*unfinished).values(finished_at=now)).rowcount


def refusals(engine: sa.Engine, import_id: int, limit: int = 1000) -> list[Refusal]:
    """Rows of a file that were refused, in its order."""
    with read(engine) as connection:
        session = Session(connection)
        found = list(
            session.exec(select(Refusal).where(Refusal.import_id == import_id).order_by(col(Refusal.line)).limit(limit))
        )
        session.expunge_all()
        return found
