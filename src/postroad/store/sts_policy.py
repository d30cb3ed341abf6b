"""MTA-STS policies (RFC 8461), stored until they expire."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, Session

from postroad.store.types import StoredRow, UtcDateTime


class StsPolicy(StoredRow, table=True):
    """The last policy of a domain about TLS at its mail hosts."""

    __tablename__ = "sts_policy"

    domain: str = Field(primary_key=True, sa_type=sa.String(255))
    policy_id: str = Field(sa_type=sa.String(32))
    mode: str = Field(sa_type=sa.String(16))
    hosts: str = Field(sa_type=sa.Text, description="patterns of mail hosts, one a line")
    expires_at: datetime = Field(sa_type=UtcDateTime)


def find_sts_policy(connection: sa.Connection, domain: str) -> StsPolicy | None:
    """Return the stored policy of a domain, expired or not."""
    return Session(connection).get(StsPolicy, domain)


def save_sts_policy(connection: sa.Connection, policy: StsPolicy) -> None:
    """Save a policy in place of the one before."""
    connection.execute(
        sa.text(
            "INSERT INTO sts_policy (domain, policy_id, mode, hosts, expires_at) "
            "VALUES (:domain, :policy_id, :mode, :hosts, :expires_at) ON CONFLICT (domain) DO UPDATE SET "
            "policy_id = excluded.policy_id, mode = excluded.mode, hosts = excluded.hosts, "
            "expires_at = excluded.expires_at"
        ).bindparams(sa.bindparam("expires_at", type_=UtcDateTime())),
        policy.model_dump(),
    )
