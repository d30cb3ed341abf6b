"""Consents: those of a person, those to an audience by their source, and the members who joined by an import."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from msgspec import Struct

from postroad.read_model.page import DEFAULT_LIMIT, Page, checked_limit, decode_cursor, to_page
from postroad.read_model.people import require_import
from postroad.store.consent_page import (
    ConsentRow,
    ImportedMember,
    audience_consent_page,
    consents_of_recipient,
    imported_member_page,
)
from postroad.store.counts import consents_by_source
from postroad.store.keyset import LAST_ID
from postroad.store.person_history import Membership, memberships, recipient_of_address
from postroad.store.recipient import find_audience


class SourceCount(Struct, frozen=True, kw_only=True):
    """Number of recorded consents to an audience from one source."""

    source: str
    consents: int


class PersonConsents(Struct, frozen=True, kw_only=True):
    """The audiences of a person, and a page of the consents."""

    memberships: Sequence[Membership]
    page: Page[ConsentRow]


def consent_sources(
    connection: sa.Connection, audience: str, *, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[SourceCount]:
    """Return the sources of the recorded consents to an audience, in the order of their texts.

    Args:
        connection: A connection in a transaction.
        audience: Name of the audience.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        StateError: No audience has this name.
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    last = decode_cursor(after, str, "")
    counts = consents_by_source(connection, find_audience(connection, audience), after=last, limit=limit + 1)
    rows = [SourceCount(source=source, consents=number) for source, number in counts.items()]
    return to_page(rows, limit, lambda row: row.source)


def audience_consents(
    connection: sa.Connection,
    audience: str,
    source: str | None = None,
    *,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[ConsentRow]:
    """Return the recorded consents to an audience, the newest first.

    Args:
        connection: A connection in a transaction.
        audience: Name of the audience.
        source: Only those from this source. None: from all.
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
    audience_id = find_audience(connection, audience)
    rows = audience_consent_page(connection, audience_id, source, before=before, limit=limit + 1)
    return to_page(rows, limit, lambda row: row.number)


def person_consents(
    connection: sa.Connection, address: str, *, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> PersonConsents | None:
    """Return the consents of a person: the newest recorded ones first, then those of imports.

    Args:
        connection: A connection in a transaction.
        address: A normalised address.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The audiences and the page. None: no recipient has the address.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    before = decode_cursor(after, int, LAST_ID)
    recipient = recipient_of_address(connection, address)
    if recipient is None or recipient.id is None:
        return None
    rows = consents_of_recipient(connection, recipient.id, before=before, limit=limit + 1)
    page = to_page(rows, limit, lambda row: row.number)
    return PersonConsents(memberships=memberships(connection, recipient.id), page=page)


def members_of_import(
    connection: sa.Connection, audience: str, import_id: int, *, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[ImportedMember]:
    """Return the members who joined by an import, in the order of their ids, as many as its ``joined`` says.

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
    rows = imported_member_page(connection, import_id, after=decode_cursor(after, int, 0), limit=limit + 1)
    return to_page(rows, limit, lambda row: row.recipient_id)
