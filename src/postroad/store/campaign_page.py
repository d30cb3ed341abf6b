"""Reads campaigns in pages, by their names."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from postroad.store.campaign import CampaignState
from postroad.store.types import UtcDateTime


class CampaignRow(NamedTuple):
    """One campaign, without its messages."""

    name: str
    state: CampaignState
    audience: str
    sender: str
    created_at: datetime
    launched_at: datetime | None
    finished_at: datetime | None


def campaign_page(
    connection: sa.Connection, *, after: str, state: CampaignState | None, limit: int
) -> list[CampaignRow]:
    """Return the campaigns whose names come after a name. ``state``: only those in this state."""
    of_state = "AND campaign.state = :state" if state is not None else ""
    statement = sa.text(
        "SELECT campaign.name, campaign.state, audience.name AS audience, sender.name AS sender, campaign.created_at, "
        "campaign.launched_at, campaign.finished_at FROM campaign JOIN audience ON audience.id = campaign.audience_id "
        f"JOIN sender ON sender.id = campaign.sender_id WHERE campaign.name > :after {of_state} "
        "ORDER BY campaign.name LIMIT :limit"
    ).columns(
        sa.column("name", sa.Text()),
        sa.column("state", sa.Text()),
        sa.column("audience", sa.Text()),
        sa.column("sender", sa.Text()),
        sa.column("created_at", UtcDateTime()),
        sa.column("launched_at", UtcDateTime()),
        sa.column("finished_at", UtcDateTime()),
    )
    values = {"after": after, "limit": limit, **({} if state is None else {"state": state.value})}
    return [CampaignRow(row[0], CampaignState(row[1]), *row[2:]) for row in connection.execute(statement, values)]
