"""Recipients, and the audiences that they asked to be in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime


class Recipient(SQLModel, table=True):
    """A person's address, with the merge fields known of them."""

    __tablename__ = "recipient"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    address: str = Field(sa_type=sa.String(320), unique=True, description="normalised: domain in lower case, IDNA")
    domain: str = Field(sa_type=sa.String(255), description="what follows the @ of the address")
    time_zone: str | None = Field(default=None, sa_type=sa.String(64), description="name in the IANA database")
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_OBJECT, nullable=False)
    created_at: datetime = Field(sa_type=UtcDateTime)


class Audience(SQLModel, table=True):
    """A named list of recipients who gave their permission."""

    __tablename__ = "audience"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    name: str = Field(sa_type=sa.String(100), unique=True)
    created_at: datetime = Field(sa_type=UtcDateTime)


class AudienceImport(SQLModel, table=True):
    """One file on its way into an audience: what it holds, and how far it has been read."""

    __tablename__ = "audience_import"
    __table_args__ = (sa.UniqueConstraint("audience_id", "sha256"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    audience_id: int = Field(foreign_key="audience.id", sa_type=BIG_ID)
    path: str = Field(sa_type=sa.Text)
    sha256: str = Field(sa_type=sa.String(64))
    rows_total: int
    cursor: int = Field(default=0, sa_type=BIG_ID, description="bytes read")
    line: int = Field(default=1, description="lines read")
    rows_done: int = 0
    imported: int = 0
    duplicates: int = 0
    refused: int = 0
    started_at: datetime = Field(sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class AudienceMember(SQLModel, table=True):
    """A recipient in an audience, and the import that brought them last."""

    __tablename__ = "audience_member"

    audience_id: int = Field(foreign_key="audience.id", primary_key=True, sa_type=BIG_ID)
    recipient_id: int = Field(foreign_key="recipient.id", primary_key=True, sa_type=BIG_ID)
    import_id: int = Field(foreign_key="audience_import.id", sa_type=BIG_ID)


class Refusal(SQLModel, table=True):
    """A row of an imported file that was not taken, and why."""

    __tablename__ = "refusal"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    import_id: int = Field(foreign_key="audience_import.id", sa_type=BIG_ID, index=True)
    line: int
    field: str = Field(sa_type=sa.String(100))
    value: str = Field(sa_type=sa.String(320))
    reason: str = Field(sa_type=sa.String(200))
