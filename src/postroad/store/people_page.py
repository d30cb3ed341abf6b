"""Reads members, imports, refused rows and suppressions a page at a time, each in the order of an index."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from postroad.store.bulk import any_of, id_rows
from postroad.store.keyset import keyset_sql
from postroad.store.suppression import SuppressionReason
from postroad.store.types import UtcDateTime


class ListedMember(NamedTuple):
    """A member of an audience. ``joined_at``: when the first import added it; None: not recorded."""

    recipient_id: int
    address: str
    time_zone: str | None
    joined_at: datetime | None
    import_id: int


class ImportRow(NamedTuple):
    """An import of a file. ``rows``: of the file. ``done``: rows that were read. ``finished_at`` None: interrupted.

    ``joined``: members whom no import before had added.
    """

    id: int
    audience_id: int
    path: str
    rows: int
    done: int
    imported: int
    duplicates: int
    refused: int
    joined: int
    started_at: datetime
    finished_at: datetime | None


class RefusalRow(NamedTuple):
    """A refused row of a file, with the field and the value because of which it was refused."""

    id: int
    line: int
    field: str
    value: str
    reason: str


class SuppressionRow(NamedTuple):
    """A suppression. ``address``: or a domain or a hash. ``audience`` None: everywhere."""

    number: int
    address: str
    audience: str | None
    reason: str
    source: str
    created_at: datetime


def _integers(*names: str) -> list[sa.ColumnClause[int]]:
    return [sa.column(name, sa.Integer()) for name in names]


def _texts(*names: str) -> list[sa.ColumnClause[str]]:
    return [sa.column(name, sa.Text()) for name in names]


def _times(*names: str) -> list[sa.ColumnClause[datetime]]:
    return [sa.column(name, UtcDateTime()) for name in names]


_IMPORTS = (
    "SELECT id, audience_id, path, rows_total, rows_done, imported, duplicates, refused, "
    "(SELECT COALESCE(sum(members), 0) FROM audience_count WHERE audience_count.audience_id = "
    "audience_import.audience_id AND audience_count.import_id = audience_import.id) AS joined, started_at, finished_at "
    "FROM audience_import WHERE"
)
_IMPORT_COLUMNS: tuple[sa.ColumnClause[Any], ...] = (
    *_integers("id", "audience_id"),
    *_texts("path"),
    *_integers("rows_total", "rows_done", "imported", "duplicates", "refused", "joined"),
    *_times("started_at", "finished_at"),
)


def member_page(connection: sa.Connection, audience_id: int, *, after: int, limit: int) -> list[ListedMember]:
    """Return members of an audience whose recipient ids are greater than ``after``, in that order."""
    statement = sa.text(
        "SELECT member.recipient_id, recipient.address, recipient.time_zone, member.joined_at, member.import_id FROM "
        "(SELECT recipient_id, joined_at, import_id FROM audience_member WHERE audience_id = :audience_id "
        "AND recipient_id > :after ORDER BY recipient_id LIMIT :limit) AS member "
        "JOIN recipient ON recipient.id = member.recipient_id ORDER BY member.recipient_id"
    ).columns(
        *_integers("recipient_id"), *_texts("address", "time_zone"), *_times("joined_at"), *_integers("import_id")
    )
    values = {"audience_id": audience_id, "after": after, "limit": limit}
    return [ListedMember(*row) for row in connection.execute(statement, values)]


def newest_imports(connection: sa.Connection, audience_ids: Sequence[int]) -> dict[int, ImportRow]:
    """Return the newest import of those of these audiences that have any, by the audience's id."""
    item, parameters = id_rows(connection, audience_ids)
    # One lookup for each audience: an audience may have many imports.
    newest = "(SELECT max(its.id) FROM audience_import AS its WHERE its.audience_id = batch.id)"
    statement = sa.text(f"{_IMPORTS} id {any_of(connection, f'SELECT {newest} FROM {item}')}")
    rows = [ImportRow(*row) for row in connection.execute(statement.columns(*_IMPORT_COLUMNS), parameters)]
    return {row.audience_id: row for row in rows}


def import_page(connection: sa.Connection, audience_id: int, *, before: int, limit: int) -> list[ImportRow]:
    """Return imports into an audience whose ids are smaller than ``before``, the newest first."""
    where, order_by = keyset_sql(connection, equal=("audience_id",), key=("id",), descending=True)
    statement = sa.text(f"{_IMPORTS} {where} ORDER BY {order_by} LIMIT :limit")
    values = {"audience_id": audience_id, "after_id": before, "limit": limit}
    return [ImportRow(*row) for row in connection.execute(statement.columns(*_IMPORT_COLUMNS), values)]


def refusal_page(connection: sa.Connection, import_id: int, *, after: int, limit: int) -> list[RefusalRow]:
    """Return refused rows of an import whose ids are greater than ``after``, in that order."""
    where, order_by = keyset_sql(connection, equal=("import_id",), key=("id",))
    statement = sa.text(
        f"SELECT id, line, field, value, reason FROM refusal WHERE {where} ORDER BY {order_by} LIMIT :limit"
    )
    values = {"import_id": import_id, "after_id": after, "limit": limit}
    return [RefusalRow(*row) for row in connection.execute(statement, values)]


def suppression_page(
    connection: sa.Connection, reason: SuppressionReason, *, before: int, limit: int
) -> list[SuppressionRow]:
    """Return suppressions for a reason whose numbers are smaller than ``before``, the newest first."""
    where, order_by = keyset_sql(connection, equal=("reason",), key=("number",), descending=True)
    statement = sa.text(
        "SELECT found.number, found.address, audience.name AS audience, found.reason, found.source, found.created_at "
        "FROM (SELECT number, address, audience_id, reason, source, created_at FROM suppression "
        f"WHERE {where} ORDER BY {order_by} LIMIT :limit) AS found "
        "LEFT JOIN audience ON audience.id = found.audience_id ORDER BY found.number DESC"
    ).columns(*_integers("number"), *_texts("address", "audience", "reason", "source"), *_times("created_at"))
    values = {"reason": reason.value, "after_number": before, "limit": limit}
    return [SuppressionRow(*row) for row in connection.execute(statement, values)]
