"""Consents: the evidence that recipients asked for mail.

A consent that was recorded is a row, which is never changed. The consent of a member who joined by an import is the
import and the line, which the member's row names. A suppression ends no consent: it decides whether mail is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.bulk import json_rows
from postroad.store.types import BIG_ID, StoredRow, UtcDateTime, sql_time


class Consent(StoredRow, table=True):
    """A recipient asked for mail to an audience: when, where, and with which wording."""

    __tablename__ = "consent"
    __table_args__ = (
        sa.Index("ux_consent", "recipient_id", "audience_id", "given_at", "source", unique=True),
        sa.Index("ix_consent_audience", "audience_id", "id"),
        sa.Index("ix_consent_source", "audience_id", "source", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    recipient_id: int = Field(foreign_key="recipient.id", sa_type=BIG_ID)
    audience_id: int = Field(foreign_key="audience.id", sa_type=BIG_ID)
    given_at: datetime = Field(sa_type=UtcDateTime)
    source: str = Field(sa_type=sa.String(200), description="where the recipient asked, such as the URL of a form")
    ip: str | None = Field(default=None, sa_type=sa.String(45))
    wording: str | None = Field(default=None, sa_type=sa.Text, description="the text to which the recipient agreed")
    confirmation: str | None = Field(default=None, sa_type=sa.String(200), description="how the address was confirmed")
    recorded_at: datetime = Field(sa_type=UtcDateTime)
    recorded_by: str = Field(sa_type=sa.String(200))


class NewConsent(NamedTuple):
    """A consent to record, of a normalised address."""

    address: str
    domain: str
    audience_id: int
    given_at: datetime
    source: str
    ip: str | None = None
    wording: str | None = None
    confirmation: str | None = None


def record_consents(connection: sa.Connection, consents: Sequence[NewConsent], by: str, now: datetime) -> int:
    """Record consents. An address that is not known becomes a recipient, in no audience.

    Args:
        connection: A connection in a transaction that writes, with the lock of imports.
        consents: The consents. One that was recorded for its recipient, audience, time and source is skipped.
        by: Who records them.
        now: The time of the transaction.

    Returns:
        The number of new ones.
    """
    if not consents:
        return 0
    dialect = connection.dialect.name
    rows = [{**each._asdict(), "given_at": sql_time(each.given_at, dialect)} for each in consents]
    people = {each.address: {"address": each.address, "domain": each.domain} for each in consents}
    new, parameters = json_rows(
        connection, "new", {"address": sa.Text(), "domain": sa.Text()}, [people[address] for address in sorted(people)]
    )
    insert = sa.text(
        "INSERT INTO recipient (address, domain, attributes, created_at) "
        f"SELECT new.address, new.domain, '{{}}', :now FROM {new} WHERE true ON CONFLICT (address) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    connection.execute(insert, {"now": now, **parameters})
    columns: dict[str, sa.types.TypeEngine[Any]] = {
        "address": sa.Text(),
        "audience_id": sa.BigInteger(),
        "given_at": UtcDateTime(),
        "source": sa.Text(),
        "ip": sa.Text(),
        "wording": sa.Text(),
        "confirmation": sa.Text(),
    }
    new, parameters = json_rows(connection, "new", columns, rows)
    # CROSS JOIN: SQLite must start with the new rows, whatever it estimates.
    join = "CROSS JOIN recipient ON" if dialect == "sqlite" else "JOIN recipient ON"
    record = sa.text(
        "INSERT INTO consent (recipient_id, audience_id, given_at, source, ip, wording, confirmation, recorded_at, "
        "recorded_by) SELECT recipient.id, new.audience_id, new.given_at, new.source, new.ip, new.wording, "
        f"new.confirmation, :now, :by FROM {new} {join} recipient.address = new.address "
        "WHERE true ORDER BY recipient.id, new.audience_id, new.given_at, new.source "
        "ON CONFLICT (recipient_id, audience_id, given_at, source) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return connection.execute(record, {"now": now, "by": by, **parameters}).rowcount
