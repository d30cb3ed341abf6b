"""Suppressions: addresses and domains to which no message is sent, everywhere or for one audience.

The first character tells the kind: ``@`` and a domain; ``#`` and the hash of an address that may not be stored in
clear; otherwise an address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine
from sqlmodel import Field

from postroad.store.bulk import found_sql, json_rows
from postroad.store.engine import read, write
from postroad.store.further_reason import record_further_reasons
from postroad.store.types import BIG_ID, StoredRow, StrEnumType, UtcDateTime, sql_time

EVERYWHERE = 0
"""Id for all audiences. A number and not NULL, so that it can be part of the key."""


class SuppressionReason(StrEnum):
    """Why an address is suppressed."""

    UNSUBSCRIBE = "unsubscribe"
    HARD_BOUNCE = "hard_bounce"
    SOFT_BOUNCE = "soft_bounce"  # several in a row
    COMPLAINT = "complaint"
    MANUAL = "manual"


class Suppression(StoredRow, table=True):
    """One suppressed address, domain or hash, everywhere or for one audience."""

    __tablename__ = "suppression"
    __table_args__ = (sa.Index("ix_suppression_reason", "reason", "number"),)

    address: str = Field(primary_key=True, sa_type=sa.String(320), description="or @domain, or #hash")
    audience_id: int = Field(
        default=EVERYWHERE,
        primary_key=True,
        sa_type=sa.BigInteger,
        sa_column_kwargs={"server_default": sa.text("0"), "autoincrement": False},
        description="0: everywhere",
    )
    reason: SuppressionReason = Field(sa_type=StrEnumType(SuppressionReason))
    source: str = Field(sa_type=sa.String(200), description="source: a reply, a file, a person")
    created_at: datetime = Field(sa_type=UtcDateTime)
    number: int | None = Field(
        default=None, sa_type=sa.BigInteger, index=True, description="ascending in the order of insertion"
    )
    also: SuppressionReason | None = Field(
        default=None,
        sa_type=StrEnumType(SuppressionReason),
        description="of an unsubscribe: another reason, for which it holds for transactional messages, too",
    )


class LiftedSuppression(StoredRow, table=True):
    """A suppression that was lifted, with who lifted it, when and why."""

    __tablename__ = "lifted_suppression"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    address: str = Field(sa_type=sa.String(320), index=True)
    audience_id: int = Field(sa_type=sa.BigInteger)
    reason: SuppressionReason = Field(sa_type=StrEnumType(SuppressionReason))
    source: str = Field(sa_type=sa.String(200))
    created_at: datetime = Field(sa_type=UtcDateTime)
    lifted_at: datetime = Field(sa_type=UtcDateTime)
    lifted_by: str = Field(sa_type=sa.String(100))
    why: str = Field(sa_type=sa.String(200))


class Entry(NamedTuple):
    """One suppression to save, as a row of a list gives it."""

    address: str
    reason: SuppressionReason
    source: str
    created_at: datetime
    audience_id: int = EVERYWHERE


PERMISSION_AUDIENCE = "COALESCE(campaign.permission_audience_id, campaign.audience_id)"
"""SQL expression of the audience whose suppressions hold for a campaign."""


def transactional_sql(request: str) -> str:
    """Return the SQL condition that a request is one for a transactional message. ``request``: SQL of its id."""
    # Not EXISTS: PostgreSQL might read all requests into a hash table.
    return (
        "COALESCE((SELECT message_request.transactional FROM message_request "
        f"WHERE message_request.id = {request}), false)"
    )


HOLDS_ALWAYS = "(suppression.reason <> 'unsubscribe' OR suppression.also IS NOT NULL)"
"""SQL condition that a suppression holds for transactional messages, too: it is not only an unsubscribe."""


def suppressed_sql(hashed: str | None = None, *, request: str | None = None) -> str:
    """Return the SQL condition that the row of ``recipient`` is suppressed for the audience of ``campaign``.

    Args:
        hashed: SQL expression of the hash of the recipient's address, which may be NULL.
        request: SQL expression of the id of a touch's request. An unsubscribe does not hold for a transactional
            message. None: no touch is meant, and every suppression holds.
    """
    keys = ["recipient.address", "'@' || recipient.domain", *([hashed] if hashed else [])]
    holds = "" if request is None else f" AND ({HOLDS_ALWAYS} OR NOT {transactional_sql(request)})"
    return (
        f"EXISTS (SELECT 1 FROM suppression WHERE suppression.address IN ({', '.join(keys)}) "
        f"AND suppression.audience_id IN (0, {PERMISSION_AUDIENCE}){holds})"
    )


def suppressions_of(
    connection: sa.Connection, address: str, hashes: Sequence[str], audience_id: int
) -> list[Suppression]:
    """Return the suppressions that keep mail of an audience from an address: of itself, its domain or its hashes."""
    keys = [address, f"@{address.rpartition('@')[2]}", *hashes]
    statement = sa.select(Suppression.__table__).where(  # type: ignore[attr-defined]
        sa.column("address").in_(keys), sa.column("audience_id").in_((EVERYWHERE, audience_id))
    )
    return _suppressions_in(connection.execute(statement))


def save_suppressions(connection: sa.Connection, entries: Sequence[Entry]) -> int:
    """Save suppressions. The first reason of each is kept. After an unsubscribe, another reason is stored with it.

    Returns:
        The number of new ones.
    """
    if not entries:
        return 0
    dialect = connection.dialect.name
    unique = {(entry.address, entry.audience_id): entry for entry in reversed(entries)}
    # In a fixed order, so that two lists with the same addresses do not deadlock.
    rows = [
        {**entry._asdict(), "reason": entry.reason.value, "created_at": sql_time(entry.created_at, dialect)}
        for _, entry in sorted(unique.items())
    ]
    columns: dict[str, TypeEngine[Any]] = {
        "address": sa.Text(),
        "audience_id": sa.BigInteger(),
        "reason": sa.Text(),
        "source": sa.Text(),
        "created_at": UtcDateTime(),
    }
    new, parameters = json_rows(connection, "new", columns, rows)
    names = ", ".join(columns)
    number = "nextval('suppression_number')"
    if dialect == "sqlite":
        number = "(SELECT COALESCE(max(number), 0) FROM suppression) + row_number() OVER ()"
    statement = sa.text(
        f"INSERT INTO suppression ({names}, number) SELECT {names}, {number} FROM {new} WHERE true "
        "ORDER BY new.address, new.audience_id ON CONFLICT (address, audience_id) DO NOTHING"
    )
    inserted = connection.execute(statement, parameters).rowcount
    if inserted < len(rows) and any(entry.reason is not SuppressionReason.UNSUBSCRIBE for entry in entries):
        record_further_reasons(connection, new, parameters)
    return inserted


def suppress(
    connection: sa.Connection,
    addresses: Iterable[str],
    reason: SuppressionReason,
    source: str,
    now: datetime,
    audience_id: int = EVERYWHERE,
) -> int:
    """Suppress normalised addresses. The first reason of each is kept. Returns the number of new ones."""
    return save_suppressions(connection, [Entry(address, reason, source, now, audience_id) for address in addresses])


def rekey(connection: sa.Connection, hashes: Mapping[str, str]) -> int:
    """Replace hashes of suppressions. ``hashes``: the new hash of each old one. Returns the number replaced."""
    if not hashes:
        return 0
    item, parameters = json_rows(connection, "old", {"address": sa.Text()}, [{"address": old} for old in hashes])
    picked = f"WHERE address IN (SELECT old.address FROM {item})"
    statement = sa.text(f"SELECT address, audience_id, reason, source, created_at FROM suppression {picked}")
    found = connection.execute(statement.columns(*_COLUMNS), parameters).all()
    if not found:
        return 0
    save_suppressions(
        connection,
        [
            Entry(hashes[row.address], SuppressionReason(row.reason), row.source, row.created_at, row.audience_id)
            for row in found
        ],
    )
    connection.execute(sa.text(f"DELETE FROM suppression {picked}"), parameters)
    return len(found)


def upgrade_reason(connection: sa.Connection, address: str, reason: SuppressionReason, source: str) -> None:
    """Replace the reason of an address that is suppressed for bounces by one that is never lifted automatically.

    A bounce is still stored after an unsubscribe, because it holds for transactional messages, too.
    """
    statement = sa.text(
        "UPDATE suppression SET also = CASE WHEN :reason = 'unsubscribe' THEN reason ELSE also END, "
        "reason = :reason, source = :source "
        "WHERE address = :address AND audience_id = 0 AND reason IN ('hard_bounce', 'soft_bounce')"
    )
    connection.execute(statement, {"address": address, "reason": reason.value, "source": source})


STEP = 1_000
"""Suppressions that one transaction saves."""


def suppress_now(
    engine: sa.Engine, addresses: Iterable[str], reason: SuppressionReason, source: str, now: datetime
) -> int:
    """Suppress addresses everywhere, as `save_suppressions_now` does. Returns how many are new."""
    return save_suppressions_now(engine, [Entry(address, reason, source, now) for address in addresses])


def save_suppressions_now(engine: sa.Engine, entries: Sequence[Entry]) -> int:
    """Save suppressions in transactions of a thousand. Idempotent: a failure keeps the transactions before it.

    Returns:
        The number of new suppressions.
    """
    new = 0
    for start in range(0, len(entries), STEP):
        with write(engine) as connection:
            new += save_suppressions(connection, entries[start : start + STEP])
    return new


def lift(
    engine: sa.Engine, addresses: Sequence[str], audience_id: int | None, *, by: str, why: str, now: datetime
) -> list[Suppression]:
    """Delete suppressions, and record who did it and why.

    Args:
        engine: The database.
        addresses: The addresses, in every form in which one may be stored.
        audience_id: The audience; None: all suppressions of the addresses.
        by: Who lifts them.
        why: The reason.
        now: The time of the call.

    Returns:
        The deleted suppressions.
    """
    item_of = {"address": sa.Text()}
    with write(engine) as connection:
        item, parameters = json_rows(connection, "taken", item_of, [{"address": address} for address in addresses])
        statement = sa.text(
            f"DELETE FROM suppression WHERE address IN (SELECT taken.address FROM {item}) "
            "AND (:everywhere OR audience_id = :audience_id) "
            "RETURNING address, audience_id, reason, source, created_at"
        ).columns(*_COLUMNS)
        values = {"everywhere": audience_id is None, "audience_id": audience_id or EVERYWHERE, **parameters}
        taken = _suppressions_in(connection.execute(statement, values))
        _note_lifted(connection, taken, by=by, why=why, now=now)
        return taken


_OTHER_BOUNCE = found_sql(
    "touch AS other JOIN delivery_event ON delivery_event.touch_id = other.id "
    "WHERE other.recipient_id = recipient.id AND delivery_event.state = 'bounced' "
    "AND delivery_event.blame = 'recipient' AND delivery_event.at > :since"
)


def lift_bounces(
    connection: sa.Connection, touch_ids: Sequence[int], *, since: datetime, why: str, now: datetime
) -> int:
    """Delete suppressions of these touches' recipients that bounces caused since a time.

    A recipient with another bounce that counts since then stays suppressed.

    Returns:
        The number of deleted suppressions.
    """
    if not touch_ids:
        return 0
    item, parameters = json_rows(connection, "lifted", {"id": sa.BigInteger()}, [{"id": id_} for id_ in touch_ids])
    statement = (
        sa.text(
            "DELETE FROM suppression WHERE audience_id = 0 AND reason IN ('hard_bounce', 'soft_bounce') "
            "AND created_at > :since AND address IN ("
            f"SELECT recipient.address FROM {item} JOIN touch ON touch.id = lifted.id "
            f"JOIN recipient ON recipient.id = touch.recipient_id WHERE NOT {_OTHER_BOUNCE}) "
            "RETURNING address, audience_id, reason, source, created_at"
        )
        .bindparams(sa.bindparam("since", type_=UtcDateTime()))
        .columns(*_COLUMNS)
    )
    taken = _suppressions_in(connection.execute(statement, {"since": since, **parameters}))
    _note_lifted(connection, taken, by="postroad", why=why, now=now)
    return len(taken)


def _suppressions_in(rows: Iterable[sa.Row[Any]]) -> list[Suppression]:
    return [Suppression(**{**row._mapping, "reason": SuppressionReason(row.reason)}) for row in rows]


def _note_lifted(connection: sa.Connection, taken: Sequence[Suppression], *, by: str, why: str, now: datetime) -> None:
    if not taken:
        return
    recorded = {"lifted_at": now, "lifted_by": by[:100], "why": why[:200]}
    connection.execute(
        sa.insert(LiftedSuppression), [{**one.model_dump(exclude={"number", "also"}), **recorded} for one in taken]
    )


_COLUMNS = (
    sa.column("address", sa.Text()),
    sa.column("audience_id", sa.BigInteger()),
    sa.column("reason", sa.Text()),
    sa.column("source", sa.Text()),
    sa.column("created_at", UtcDateTime()),
)


class Listed(NamedTuple):
    """A suppression for display and export. ``audience`` None: everywhere."""

    address: str
    audience: str | None
    reason: str
    source: str
    created_at: datetime


def suppressions(engine: sa.Engine, limit: int | None = None) -> list[Listed]:
    """Return suppressions, the newest first."""
    statement = sa.text(
        "SELECT suppression.address, audience.name AS audience, suppression.reason, suppression.source, "
        "suppression.created_at FROM suppression LEFT JOIN audience ON audience.id = suppression.audience_id "
        "ORDER BY suppression.created_at DESC, suppression.address, suppression.audience_id "
        + ("" if limit is None else "LIMIT :limit")
    ).columns(*_COLUMNS[:1], sa.column("audience", sa.Text()), *_COLUMNS[2:])
    with read(engine) as connection:
        return [Listed(*row) for row in connection.execute(statement, {} if limit is None else {"limit": limit})]
