"""Where people are from: audiences, their members, imports with what they refused, and suppressions by reason."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from msgspec import Struct

from postroad.errors import StateError
from postroad.read_model.page import DEFAULT_LIMIT, Page, checked_limit, decode_cursor, to_page
from postroad.store.counts import members_by_audience, suppressions_by_reason
from postroad.store.keyset import LAST_ID
from postroad.store.people_page import (
    ImportRow,
    ListedMember,
    RefusalRow,
    SuppressionRow,
    import_page,
    member_page,
    newest_imports,
    refusal_page,
    suppression_page,
)
from postroad.store.person_page import audience_page
from postroad.store.recipient import find_audience
from postroad.store.suppression import SuppressionReason


class AudienceFigures(Struct, frozen=True, kw_only=True):
    """An audience. ``last_import``: None without an import."""

    id: int
    name: str
    created_at: datetime
    members: int
    last_import: ImportRow | None


class ReasonCount(Struct, frozen=True, kw_only=True):
    """Number of suppressions for one reason."""

    reason: SuppressionReason
    suppressions: int


def audiences(
    connection: sa.Connection, *, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[AudienceFigures]:
    """Return audiences with the number of their members and their last imports, by name.

    Args:
        connection: A connection in a transaction.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    rows = audience_page(connection, after=decode_cursor(after, str, ""), limit=limit + 1)
    ids = [row.id for row in rows]
    members, imports = members_by_audience(connection, ids), newest_imports(connection, ids)
    figures = [
        AudienceFigures(
            id=row.id,
            name=row.name,
            created_at=row.created_at,
            members=members.get(row.id, 0),
            last_import=imports.get(row.id),
        )
        for row in rows
    ]
    return to_page(figures, limit, lambda row: row.name)


def audience_members(
    connection: sa.Connection, name: str, *, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[ListedMember]:
    """Return the members of an audience in the order of their ids.

    Args:
        connection: A connection in a transaction.
        name: Name of the audience.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        StateError: No audience has this name.
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    last = decode_cursor(after, int, 0)
    rows = member_page(connection, find_audience(connection, name), after=last, limit=limit + 1)
    return to_page(rows, limit, lambda row: row.recipient_id)


def imports(
    connection: sa.Connection, name: str, *, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[ImportRow]:
    """Return the imports into an audience, the newest first.

    Args:
        connection: A connection in a transaction.
        name: Name of the audience.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        StateError: No audience has this name.
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    before = decode_cursor(after, int, LAST_ID)
    rows = import_page(connection, find_audience(connection, name), before=before, limit=limit + 1)
    return to_page(rows, limit, lambda row: row.id)


def require_import(connection: sa.Connection, audience: str, import_id: int) -> None:
    """Raise StateError if an audience has no such import, or if no audience has this name."""
    statement = sa.text("SELECT 1 FROM audience_import WHERE id = :id AND audience_id = :audience_id")
    values = {"id": import_id, "audience_id": find_audience(connection, audience)}
    if connection.execute(statement, values).first() is None:
        raise StateError(
            f"audience {audience} has no import {import_id}", remedy="Open the list of its imports.", missing=True
        )


def import_refusals(
    connection: sa.Connection, audience: str, import_id: int, *, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[RefusalRow]:
    """Return the refused rows of an import in the order of their ids, as many as its ``refused`` says.

    Args:
        connection: A connection in a transaction.
        audience: Name of the audience.
        import_id: The import.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        StateError: There is no such audience, or it has no such import.
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    require_import(connection, audience, import_id)
    rows = refusal_page(connection, import_id, after=decode_cursor(after, int, 0), limit=limit + 1)
    return to_page(rows, limit, lambda row: row.id)


def suppression_counts(connection: sa.Connection) -> list[ReasonCount]:
    """Return the number of suppressions for each reason that has any, in the order of `SuppressionReason`."""
    counts = suppressions_by_reason(connection)
    return [
        ReasonCount(reason=reason, suppressions=counts[reason.value])
        for reason in SuppressionReason
        if reason.value in counts
    ]


def suppressions_of_reason(
    connection: sa.Connection, reason: SuppressionReason, *, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[SuppressionRow]:
    """Return the suppressions for a reason, the newest first.

    Args:
        connection: A connection in a transaction.
        reason: The reason.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    before = decode_cursor(after, int, LAST_ID)
    rows = suppression_page(connection, reason, before=before, limit=limit + 1)
    return to_page(rows, limit, lambda row: row.number)
