"""Suppressions: addresses that nothing is sent to, whoever asks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from postroad.store.bulk import json_rows
from postroad.store.engine import write
from postroad.store.types import UtcDateTime, Word


class SuppressionReason(StrEnum):
    """Why nothing is sent to an address."""

    UNSUBSCRIBE = "unsubscribe"
    HARD_BOUNCE = "hard_bounce"
    SOFT_BOUNCE = "soft_bounce"  # several in a row
    COMPLAINT = "complaint"
    MANUAL = "manual"


class Suppression(SQLModel, table=True):
    """One address that nothing is sent to."""

    __tablename__ = "suppression"

    address: str = Field(primary_key=True, sa_type=sa.String(320))
    reason: SuppressionReason = Field(sa_type=Word(SuppressionReason))
    source: str = Field(sa_type=sa.String(200), description="what said so: a reply, a file, a person")
    created_at: datetime = Field(sa_type=UtcDateTime)


def suppress(
    connection: sa.Connection, addresses: Iterable[str], reason: SuppressionReason, source: str, now: datetime
) -> int:
    """Suppress normalised addresses; the first reason given for one stays. Returns how many are new."""
    rows = [{"address": address} for address in addresses]
    if not rows:
        return 0
    new, parameters = json_rows(connection, "new", {"address": sa.String()}, rows)
    statement = sa.text(
        f"INSERT INTO suppression (address, reason, source, created_at) "
        f"SELECT DISTINCT new.address, :reason, :source, :now FROM {new} WHERE true ORDER BY new.address "
        "ON CONFLICT (address) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    values = {"reason": reason.value, "source": source, "now": now, **parameters}
    return connection.execute(statement, values).rowcount


def strengthen(connection: sa.Connection, address: str, reason: SuppressionReason, source: str) -> None:
    """Give an address that is suppressed for bounces a weightier reason: a complaint or an unsubscribe is for good."""
    statement = sa.text(
        "UPDATE suppression SET reason = :reason, source = :source "
        "WHERE address = :address AND reason IN ('hard_bounce', 'soft_bounce')"
    )
    connection.execute(statement, {"address": address, "reason": reason.value, "source": source})


def suppress_now(
    engine: sa.Engine, addresses: Iterable[str], reason: SuppressionReason, source: str, now: datetime
) -> int:
    """Suppress addresses in a transaction of its own. Returns how many are new."""
    with write(engine) as connection:
        return suppress(connection, addresses, reason, source, now)
