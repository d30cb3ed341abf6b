"""Recipients, and the audiences of which they are members."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
import sqlalchemy as sa
from sqlmodel import Field, col

from postroad.errors import unknown_name
from postroad.store.bulk import id_rows, json_rows
from postroad.store.types import BIG_ID, JSON_OBJECT, PartialIndex, StoredRow, UtcDateTime, jsonb, sql_time


class Recipient(StoredRow, table=True):
    """An address with its merge fields."""

    __tablename__ = "recipient"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    address: str = Field(sa_type=sa.String(320), unique=True, description="normalised: domain in lower case, IDNA")
    domain: str = Field(sa_type=sa.String(255), description="what follows the @ of the address")
    time_zone: str | None = Field(default=None, sa_type=sa.String(64), description="name in the IANA database")
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_OBJECT, nullable=False)
    created_at: datetime = Field(sa_type=UtcDateTime)


class Audience(StoredRow, table=True):
    """A named list of recipients who gave permission."""

    __tablename__ = "audience"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    name: str = Field(sa_type=sa.String(100), unique=True)
    created_at: datetime = Field(sa_type=UtcDateTime)


class AudienceImport(StoredRow, table=True):
    """The import of one file into an audience, and its progress."""

    __tablename__ = "audience_import"
    __table_args__ = (
        sa.UniqueConstraint("audience_id", "current_key"),
        sa.Index("ix_audience_import_audience", "audience_id", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    audience_id: int = Field(foreign_key="audience.id", sa_type=BIG_ID)
    path: str = Field(sa_type=sa.Text)
    sha256: str = Field(default="", sa_type=sa.String(64), sa_column_kwargs={"server_default": sa.text("''")})
    current_key: str = Field(
        default_factory=lambda: f"#{uuid4().hex}",
        sa_type=sa.String(64),
        description="the SHA-256 while no other import changed recipients after this one, then # and the id",
    )
    rows_total: int
    cursor: int = Field(default=0, sa_type=BIG_ID, description="bytes read")
    line: int = Field(default=1, description="lines read")
    rows_done: int = 0
    imported: int = 0
    duplicates: int = 0
    refused: int = 0
    started_at: datetime = Field(sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


def place_sql(connection: sa.Connection) -> str:
    """Return SQL of two columns of ``recipient``: the merge fields ``country`` and ``subdivision``."""
    on_sqlite = connection.dialect.name == "sqlite"
    field = "json_extract(recipient.attributes, '$.{name}')" if on_sqlite else "recipient.attributes ->> '{name}'"
    return ", ".join(f"{field.format(name=name)} AS {name}" for name in ("country", "subdivision"))


class AudienceMember(StoredRow, table=True):
    """A recipient in an audience, and the last import that contained the recipient."""

    __tablename__ = "audience_member"
    __table_args__ = (
        PartialIndex(
            "ix_audience_member_joined",
            "audience_id",
            "joined_at",
            "recipient_id",
            where="joined_at IS NOT NULL",
        ),
        PartialIndex(
            "ix_audience_member_joined_import",
            "joined_import_id",
            "recipient_id",
            where="joined_import_id IS NOT NULL",
        ),
    )

    audience_id: int = Field(foreign_key="audience.id", primary_key=True, sa_type=BIG_ID)
    recipient_id: int = Field(foreign_key="recipient.id", primary_key=True, sa_type=BIG_ID)
    import_id: int = Field(foreign_key="audience_import.id", sa_type=BIG_ID)
    joined_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="when the first import added the recipient; NULL: not recorded"
    )
    joined_import_id: int | None = Field(
        default=None, sa_type=BIG_ID, description="the first import, the evidence of the consent; NULL: not recorded"
    )
    joined_line: int | None = Field(default=None, description="line in the file of the first import; NULL: no file")


class Refusal(StoredRow, table=True):
    """A row of an imported file that was refused, and why."""

    __tablename__ = "refusal"
    __table_args__ = (sa.Index("ix_refusal_import", "import_id", "id"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    import_id: int = Field(foreign_key="audience_import.id", sa_type=BIG_ID, index=True)
    line: int
    field: str = Field(sa_type=sa.String(100))
    value: str = Field(sa_type=sa.String(320))
    reason: str = Field(sa_type=sa.String(200))


NewRecipient = tuple[str, str, str | None, str, int | None]
"""A recipient in a file: address, domain, time zone, merge fields as a JSON object, and line. None: not from a file.

A plain tuple of text and numbers, which the garbage collector tracks only once. Objects cost an import a quarter of its
time.
"""


_LOCK_KEY = 0x706F7369  # key of PostgreSQL's advisory lock, as in `postroad.store.warmup`


def acquire_import_lock(connection: sa.Connection) -> None:
    """Wait until no other import writes, and lock imports until the transaction ends. SQLite has one writer."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})


def mark_overtaken(connection: sa.Connection, import_id: int) -> None:
    """Record that an import changed recipients last. Other imports start from their first rows if repeated."""
    statement = sa.text(
        "UPDATE audience_import SET current_key = '#' || id "
        "WHERE id <> :id AND rows_done > 0 AND current_key NOT LIKE '#%'"
    )
    connection.execute(statement, {"id": import_id})


class ImportRef(NamedTuple):
    """An import, and the audience that it fills."""

    audience_id: int
    import_id: int


def audience_ids(connection: sa.Connection) -> dict[str, int]:
    """Return the id of each audience by its name."""
    return {row.name: row.id for row in connection.execute(sa.text("SELECT name, id FROM audience"))}


def audience_name(connection: sa.Connection, audience_id: int) -> str:
    """Return the name of an audience, which must exist."""
    statement = sa.text("SELECT name FROM audience WHERE id = :id")
    return str(connection.execute(statement, {"id": audience_id}).scalar_one())


def find_audience(connection: sa.Connection, name: str) -> int:
    """Return the id of an audience. Raises StateError if no audience has this name."""
    ids = audience_ids(connection)
    if name not in ids:
        raise unknown_name("audience", name, ids, listed_by="postroad audience list")
    return ids[name]


def upsert_recipients(connection: sa.Connection, new: Sequence[NewRecipient], by: ImportRef, now: datetime) -> int:
    """Insert or update recipients, and add them to an audience.

    Args:
        connection: A connection in a transaction that writes.
        new: The recipients. No two have the same address. A merge field that they lack is kept.
        by: The import and the audience.
        now: The time of the transaction.

    Returns:
        The number of recipients that this import had not contained before.
    """
    if not new:
        return 0
    take = _upsert_sqlite if connection.dialect.name == "sqlite" else _upsert_postgresql
    return take(connection, new, by, now)


_KNOWN = (
    "ON CONFLICT (address) DO UPDATE SET time_zone = COALESCE(excluded.time_zone, recipient.time_zone), attributes ="
)
_MEMBER = (
    "ON CONFLICT (audience_id, recipient_id) DO UPDATE SET import_id = excluded.import_id "
    "WHERE audience_member.import_id <> excluded.import_id"
)


def _upsert_sqlite(connection: sa.Connection, new: Sequence[NewRecipient], by: ImportRef, now: datetime) -> int:
    # A row costs half as much as one in a JSON array, which SQLite parses again for each field.
    created_at = sql_time(now, "sqlite")
    connection.exec_driver_sql(
        "INSERT INTO recipient (address, domain, time_zone, attributes, created_at) VALUES (?, ?, ?, ?, ?) "
        f"{_KNOWN} json_patch(recipient.attributes, excluded.attributes)",
        [(address, domain, zone, attributes, created_at) for address, domain, zone, attributes, _ in new],
    )
    # CROSS JOIN: SQLite must start with the addresses, whatever it estimates.
    members = sa.text(
        "INSERT INTO audience_member (audience_id, recipient_id, import_id, joined_at, joined_import_id, joined_line) "
        "SELECT :audience_id, recipient.id, :import_id, :joined_at, :import_id, new.value "
        "FROM json_each(:lines) AS new CROSS JOIN recipient ON recipient.address = new.key "
        f"WHERE true {_MEMBER}"
    )
    lines = msgspec.json.encode({address: line for address, *_, line in new}).decode()
    values = {**by._asdict(), "lines": lines, "joined_at": created_at}
    return connection.execute(members, values).rowcount


def _upsert_postgresql(connection: sa.Connection, new: Sequence[NewRecipient], by: ImportRef, now: datetime) -> int:
    columns = {
        "address": sa.Text(),
        "domain": sa.Text(),
        "time_zone": sa.Text(),
        "attributes": jsonb(),
        "line": sa.Integer(),
    }
    rows = [
        {"address": address, "domain": domain, "time_zone": zone, "attributes": msgspec.Raw(attributes), "line": line}
        for address, domain, zone, attributes, line in new
    ]
    item, parameters = json_rows(connection, "new", columns, rows)
    statement = sa.text(
        f"WITH new AS MATERIALIZED (SELECT * FROM {item}), "
        "kept AS (INSERT INTO recipient (address, domain, time_zone, attributes, created_at) "
        "SELECT new.address, new.domain, new.time_zone, new.attributes, :now FROM new "
        f"{_KNOWN} recipient.attributes || excluded.attributes RETURNING id, address) "
        "INSERT INTO audience_member (audience_id, recipient_id, import_id, joined_at, joined_import_id, joined_line) "
        "SELECT :audience_id, kept.id, :import_id, :now, :import_id, new.line "
        f"FROM kept JOIN new ON new.address = kept.address {_MEMBER}"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return connection.execute(statement, {"now": now, **by._asdict(), **parameters}).rowcount


def insert_recipient(connection: sa.Connection, address: str, domain: str, now: datetime) -> int:
    """Return the id of the recipient with a normalised address, who is inserted if the address is not known."""
    statement = sa.text(
        "INSERT INTO recipient (address, domain, attributes, created_at) VALUES (:address, :domain, '{}', :now) "
        "ON CONFLICT (address) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    connection.execute(statement, {"address": address, "domain": domain, "now": now})
    known = sa.text("SELECT id FROM recipient WHERE address = :address")
    return int(connection.execute(known, {"address": address}).scalar_one())


def set_attributes(
    connection: sa.Connection, recipient_id: int, time_zone: str | None, attributes: dict[str, Any]
) -> None:
    """Replace the time zone and all merge fields of a recipient."""
    values = {"time_zone": time_zone, "attributes": attributes}
    connection.execute(sa.update(Recipient).where(col(Recipient.id) == recipient_id).values(**values))


def is_member(connection: sa.Connection, audience_id: int, recipient_id: int) -> bool:
    """Return whether a recipient is a member of an audience."""
    statement = sa.text("SELECT 1 FROM audience_member WHERE audience_id = :audience AND recipient_id = :recipient")
    return connection.execute(statement, {"audience": audience_id, "recipient": recipient_id}).first() is not None


def addresses_of_touches(connection: sa.Connection, touch_ids: Sequence[int]) -> list[str]:
    """Return the addresses of the recipients of these touches, each once."""
    item, parameters = id_rows(connection, touch_ids)
    statement = sa.text(
        f"SELECT DISTINCT recipient.address FROM {item} JOIN touch ON touch.id = batch.id "
        "JOIN recipient ON recipient.id = touch.recipient_id"
    )
    return list(connection.execute(statement, parameters).scalars())
