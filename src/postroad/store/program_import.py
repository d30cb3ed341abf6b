"""The import that stands for the members whom one program added to one audience."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from postroad.store.bulk import any_of, json_rows
from postroad.store.types import UtcDateTime


def open_program_import(connection: sa.Connection, audience_id: int, by: str, now: datetime) -> int:
    """Return the id of the import of a program into an audience, which is inserted by its first call.

    Its key begins with ``#``, so that no file is taken for it.
    """
    values = {"audience_id": audience_id, "path": by, "key": f"#{by}"[:64], "now": now}
    insert = sa.text(
        "INSERT INTO audience_import (audience_id, path, sha256, current_key, rows_total, cursor, line, rows_done, "
        "imported, duplicates, refused, started_at, finished_at) "
        "VALUES (:audience_id, :path, '', :key, 0, 0, 0, 0, 0, 0, 0, :now, :now) "
        "ON CONFLICT (audience_id, current_key) DO UPDATE SET finished_at = excluded.finished_at RETURNING id"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return int(connection.execute(insert, values).scalar_one())


def count_members(connection: sa.Connection, audience_id: int, addresses: Sequence[str]) -> int:
    """Return how many of these normalised addresses are members of an audience."""
    rows = [{"address": address} for address in addresses]
    item, parameters = json_rows(connection, "asked", {"address": sa.Text()}, rows)
    ids = f"SELECT id FROM recipient WHERE address {any_of(connection, f'SELECT asked.address FROM {item}')}"
    statement = sa.text(
        f"SELECT count(*) FROM audience_member WHERE audience_id = :id AND recipient_id {any_of(connection, ids)}"
    )
    return int(connection.execute(statement, {"id": audience_id, **parameters}).scalar_one())


def record_rows(connection: sa.Connection, import_id: int, *, imported: int, duplicates: int) -> None:
    """Add rows to the counts of an import."""
    statement = sa.text(
        "UPDATE audience_import SET imported = imported + :imported, duplicates = duplicates + :duplicates, "
        "rows_done = rows_done + :rows, rows_total = rows_total + :rows WHERE id = :id"
    )
    values = {"imported": imported, "duplicates": duplicates, "rows": imported + duplicates, "id": import_id}
    connection.execute(statement, values)
