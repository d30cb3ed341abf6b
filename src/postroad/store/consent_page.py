"""Reads consents a page at a time: of a person, of an audience, and the members who joined by an import."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from postroad.store.bulk import any_of, id_rows, lookup_join
from postroad.store.keyset import keyset_sql
from postroad.store.types import UtcDateTime


class ConsentRow(NamedTuple):
    """A consent. One of an import has a file or a program as its source, and no time at which it was given.

    ``number``: the id of a recorded one; minus the id of the import of one of an import. ``line``: None without a file.
    """

    number: int
    address: str
    audience: str
    given_at: datetime | None
    source: str
    ip: str | None
    wording: str | None
    confirmation: str | None
    recorded_at: datetime | None
    recorded_by: str
    line: int | None

    @property
    def import_id(self) -> int | None:
        """The import that is the evidence. None: it was recorded."""
        return -self.number if self.number < 0 else None


class ImportedMember(NamedTuple):
    """A member who joined an audience by an import, and the line of the file. ``line``: None without a file."""

    recipient_id: int
    address: str
    line: int | None
    joined_at: datetime | None


_COLUMNS: tuple[sa.ColumnClause[Any], ...] = (
    sa.column("number", sa.Integer()),
    sa.column("address", sa.Text()),
    sa.column("audience", sa.Text()),
    sa.column("given_at", UtcDateTime()),
    *(sa.column(name, sa.Text()) for name in ("source", "ip", "wording", "confirmation")),
    sa.column("recorded_at", UtcDateTime()),
    sa.column("recorded_by", sa.Text()),
    sa.column("line", sa.Integer()),
)
_RECORDED = (
    "SELECT consent.id AS number, recipient.address, audience.name AS audience, consent.given_at, consent.source, "
    "consent.ip, consent.wording, consent.confirmation, consent.recorded_at, consent.recorded_by, NULL AS line FROM "
)
_IMPORTED = (
    "SELECT -audience_import.id AS number, recipient.address, audience.name AS audience, NULL AS given_at, "
    "audience_import.path AS source, NULL AS ip, NULL AS wording, NULL AS confirmation, "
    "audience_member.joined_at AS recorded_at, 'import ' || audience_import.id AS recorded_by, "
    "audience_member.joined_line AS line FROM "
)


def consents_of_recipient(connection: sa.Connection, recipient_id: int, *, before: int, limit: int) -> list[ConsentRow]:
    """Return consents of a recipient whose numbers are smaller than ``before``: recorded ones, then of imports."""
    values = {"recipient_id": recipient_id, "before": before, "limit": limit}
    recorded = sa.text(
        f"{_RECORDED} consent JOIN recipient ON recipient.id = consent.recipient_id "
        "JOIN audience ON audience.id = consent.audience_id "
        "WHERE consent.recipient_id = :recipient_id AND consent.id < :before ORDER BY consent.id DESC LIMIT :limit"
    ).columns(*_COLUMNS)
    rows = [ConsentRow(*row) for row in connection.execute(recorded, values)] if before > 0 else []
    if len(rows) == limit:
        return rows
    # By both columns of the key: an audience has millions of members, and there are few audiences.
    audiences = list(connection.execute(sa.text("SELECT id FROM audience")).scalars())
    item, parameters = id_rows(connection, audiences)
    imported = sa.text(
        f"{_IMPORTED} audience_member JOIN recipient ON recipient.id = audience_member.recipient_id "
        "JOIN audience ON audience.id = audience_member.audience_id "
        "JOIN audience_import ON audience_import.id = audience_member.joined_import_id "
        f"WHERE audience_member.audience_id {any_of(connection, f'SELECT batch.id FROM {item}')} "
        "AND audience_member.recipient_id = :recipient_id AND -audience_import.id < :before "
        "ORDER BY audience_import.id LIMIT :limit"
    ).columns(*_COLUMNS)
    values |= {"limit": limit - len(rows)}
    return rows + [ConsentRow(*row) for row in connection.execute(imported, {**values, **parameters})]


def audience_consent_page(
    connection: sa.Connection, audience_id: int, source: str | None, *, before: int, limit: int
) -> list[ConsentRow]:
    """Return recorded consents to an audience whose ids are smaller than ``before``, the newest first.

    Args:
        connection: A connection in a transaction.
        audience_id: The audience.
        source: Only consents from this source. None: from all.
        before: The id before which the page begins.
        limit: Rows of the page.

    Returns:
        The consents.
    """
    equal = ("audience_id",) if source is None else ("audience_id", "source")
    where, order_by = keyset_sql(connection, equal=equal, key=("id",), descending=True)
    statement = sa.text(
        f"{_RECORDED} (SELECT * FROM consent WHERE {where} ORDER BY {order_by} LIMIT :limit) AS consent "
        f"{lookup_join(connection, 'recipient', 'recipient.id = consent.recipient_id')} "
        "JOIN audience ON audience.id = consent.audience_id ORDER BY consent.id DESC"
    ).columns(*_COLUMNS)
    values = {"audience_id": audience_id, "source": source, "after_id": before, "limit": limit}
    return [ConsentRow(*row) for row in connection.execute(statement, values)]


def imported_member_page(connection: sa.Connection, import_id: int, *, after: int, limit: int) -> list[ImportedMember]:
    """Return members who joined by an import and whose recipient ids are greater than ``after``, in that order."""
    where, order_by = keyset_sql(connection, equal=("joined_import_id",), key=("recipient_id",))
    statement = sa.text(
        "SELECT member.recipient_id, recipient.address, member.joined_line, member.joined_at FROM "
        "(SELECT recipient_id, joined_line, joined_at FROM audience_member "
        f"WHERE {where} ORDER BY {order_by} LIMIT :limit) AS member "
        f"{lookup_join(connection, 'recipient', 'recipient.id = member.recipient_id')} ORDER BY member.recipient_id"
    ).columns(
        sa.column("recipient_id", sa.Integer()),
        sa.column("address", sa.Text()),
        sa.column("joined_line", sa.Integer()),
        sa.column("joined_at", UtcDateTime()),
    )
    values = {"joined_import_id": import_id, "after_recipient_id": after, "limit": limit}
    return [ImportedMember(*row) for row in connection.execute(statement, values)]
