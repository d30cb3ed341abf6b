"""Prefect runs that work on campaigns now."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlmodel import Field, col

from postroad.store.campaign import Campaign
from postroad.store.types import BIG_ID, StoredRow, UtcDateTime


class CampaignRun(StoredRow, table=True):
    """A Prefect run that works on a campaign now. The row is deleted when the run ends or is stopped."""

    __tablename__ = "campaign_run"

    run_id: str = Field(primary_key=True, sa_type=sa.String(36))
    campaign_id: int = Field(foreign_key="campaign.id", sa_type=BIG_ID)
    started_at: datetime = Field(sa_type=UtcDateTime)


class ActiveRun(NamedTuple):
    """A run, and the name of the campaign that it works on."""

    run_id: str
    campaign: str


def add_run(connection: sa.Connection, run_id: str, campaign_id: int, now: datetime) -> None:
    """Record that a run works on a campaign. Idempotent."""
    statement = sa.text(
        "INSERT INTO campaign_run (run_id, campaign_id, started_at) VALUES (:run_id, :campaign_id, :now) "
        "ON CONFLICT (run_id) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    connection.execute(statement, {"run_id": run_id, "campaign_id": campaign_id, "now": now})


def has_run(connection: sa.Connection, run_id: str) -> bool:
    """Return whether a run still works on a campaign: it has neither ended nor been stopped."""
    statement = sa.select(sa.literal(1)).where(col(CampaignRun.run_id) == run_id)
    return connection.execute(statement).first() is not None


def active_runs(connection: sa.Connection) -> list[ActiveRun]:
    """Return the runs that work on campaigns now, the oldest first."""
    statement = (
        sa.select(col(CampaignRun.run_id), col(Campaign.name))
        .join(Campaign, col(Campaign.id) == col(CampaignRun.campaign_id))
        .order_by(col(CampaignRun.started_at))
    )
    return [ActiveRun(*row) for row in connection.execute(statement)]


def delete_runs(connection: sa.Connection, run_ids: Collection[str]) -> int:
    """Delete runs that ended or were stopped. Returns the number deleted."""
    return connection.execute(sa.delete(CampaignRun).where(col(CampaignRun.run_id).in_(run_ids))).rowcount
