"""Tokens of webhooks, each of which is valid once."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.types import StoredRow, UtcDateTime


class WebhookToken(StoredRow, table=True):
    """A token that was received. It is stored until its signature is too old."""

    __tablename__ = "webhook_token"

    token: str = Field(primary_key=True, sa_type=sa.String(64), description="hash of the token")
    seen_at: datetime = Field(sa_type=UtcDateTime, index=True)


def use_token(connection: sa.Connection, token: str, now: datetime) -> bool:
    """Record a token. Returns False if it was received before."""
    statement = sa.text(
        "INSERT INTO webhook_token (token, seen_at) VALUES (:token, :now) ON CONFLICT (token) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return connection.execute(statement, {"token": token, "now": now}).rowcount == 1


def any_token_before(connection: sa.Connection, before: datetime) -> bool:
    """Return whether a token was received before a time."""
    statement = sa.text("SELECT 1 FROM webhook_token WHERE seen_at < :before LIMIT 1").bindparams(
        sa.bindparam("before", type_=UtcDateTime())
    )
    return connection.execute(statement, {"before": before}).first() is not None


def forget_tokens(connection: sa.Connection, before: datetime) -> int:
    """Delete tokens that were received before a time. Returns the number deleted."""
    statement = sa.text("DELETE FROM webhook_token WHERE seen_at < :before").bindparams(
        sa.bindparam("before", type_=UtcDateTime())
    )
    return connection.execute(statement, {"before": before}).rowcount
