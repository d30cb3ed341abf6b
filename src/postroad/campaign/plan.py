"""Launch freezes the audience as touches of the first email; advance plans the next email of whoever got the last.

The frozen audience is the touches of the first step: nobody joins or leaves it afterwards. Touches are made by one
statement for each group of recipients that share a due instant, so an audience of a million costs a few statements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlmodel import col

from postroad.campaign.calendar import Window
from postroad.campaign.sequence import EmailPlan, email_sequence
from postroad.errors import StateError
from postroad.store.bulk import json_rows
from postroad.store.campaign import Campaign, CampaignState, find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.ledger import end_suppressed
from postroad.store.suppression import suppressed_sql
from postroad.store.types import UtcDateTime, sql_instant


@dataclass(frozen=True, kw_only=True)
class Launched:
    """What a launch froze. ``already``: an earlier one did."""

    campaign: str
    audience: int
    suppressed: int
    already: bool


def launch(engine: sa.Engine, name: str, now: datetime, hash_of: Callable[[str], str] | None = None) -> Launched:
    """Freeze the audience of a campaign and set it running, in one transaction. Again: nothing more.

    ``hash_of``: hashes an address, for suppressions that are kept so; without it, only the last look finds them.
    Raises StateError for a campaign that was cancelled, or whose audience is empty.
    """
    with write(engine) as connection:
        campaign = find_campaign(connection, name, for_update=True)
        first = _emails(connection, campaign)[0]
        already = campaign.launched_at is not None
        if campaign.state is CampaignState.CANCELLED:
            raise StateError(
                f"campaign {name} was cancelled", remedy="Apply it under another name to send it after all."
            )
        if not already:
            _freeze(connection, campaign, first, now)
            end_suppressed(connection, _id(campaign), now, hash_of)
            values = {"state": CampaignState.RUNNING, "launched_at": now}
            connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign.id).values(**values))
        audience, suppressed = connection.execute(
            sa.text(
                "SELECT count(*), count(*) FILTER (WHERE state = 'suppressed') FROM touch "
                "WHERE campaign_id = :campaign_id AND step_id = :step_id"
            ),
            {"campaign_id": campaign.id, "step_id": first.step_id},
        ).one()
        if audience == 0:
            raise StateError(
                f"the audience of campaign {name} is empty", remedy="Import it: `postroad audience import NAME FILE`."
            )
        return Launched(campaign=name, audience=audience, suppressed=suppressed, already=already)


def _id(campaign: Campaign) -> int:
    assert campaign.id is not None  # noqa: S101  (read from its table)
    return campaign.id


def _emails(connection: sa.Connection, campaign: Campaign) -> list[EmailPlan]:
    return email_sequence(steps_of(connection, _id(campaign)), Window.of(campaign.sending_window))


def _freeze(connection: sa.Connection, campaign: Campaign, first: EmailPlan, now: datetime) -> None:
    zones = connection.execute(
        sa.text(
            "SELECT DISTINCT recipient.time_zone FROM audience_member "
            "JOIN recipient ON recipient.id = audience_member.recipient_id WHERE audience_id = :audience_id"
        ),
        {"audience_id": campaign.audience_id},
    ).scalars()
    due = [
        {
            "zone": zone or "",
            "due_at": sql_instant(first.due_at(now, ZoneInfo(zone or campaign.time_zone)), connection.dialect.name),
        }
        for zone in zones
    ]
    item, parameters = json_rows(connection, "due", {"zone": sa.Text(), "due_at": UtcDateTime()}, due)
    insert = sa.text(
        "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim) "
        f"{_WITH_DUE.format(item=item)} "
        "SELECT :campaign_id, :step_id, recipient.id, 'planned', due.due_at, 0 "
        "FROM audience_member CROSS JOIN recipient CROSS JOIN due "
        "WHERE audience_member.audience_id = :audience_id AND recipient.id = audience_member.recipient_id "
        "AND due.zone = COALESCE(recipient.time_zone, '') ORDER BY audience_member.recipient_id "
        "ON CONFLICT (campaign_id, step_id, recipient_id) DO NOTHING"
    )
    values = {"campaign_id": campaign.id, "step_id": first.step_id, "audience_id": campaign.audience_id}
    connection.execute(insert, {**values, **parameters})


# Due instants are looked up for each recipient. SQLite would go through all recipients for each instant, were it not
# for CROSS JOIN, by which it joins in the order that is written.
_WITH_DUE = "WITH due AS MATERIALIZED (SELECT * FROM {item})"

_ACCEPTED = """
FROM touch AS earlier CROSS JOIN recipient {join}
WHERE recipient.id = earlier.recipient_id
AND earlier.campaign_id = :campaign_id AND earlier.step_id = :earlier_id AND earlier.state = 'accepted'
AND NOT EXISTS (SELECT 1 FROM touch AS later WHERE later.campaign_id = :campaign_id
                AND later.step_id = :later_id AND later.recipient_id = earlier.recipient_id)
"""


@dataclass(frozen=True, kw_only=True)
class Due:
    """Recipients of one time zone, and when their first email is due. None: their zone is not known."""

    time_zone: str | None
    due_at: datetime
    recipients: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a launch now would freeze."""

    recipients: int
    suppressed: int
    due: tuple[Due, ...]


def forecast(engine: sa.Engine, name: str, now: datetime) -> Forecast:
    """Who would get the first email when, were the campaign launched now. Changes nothing. Raises StateError."""
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        first = _emails(connection, campaign)[0]
        rows = connection.execute(
            sa.text(
                f"SELECT recipient.time_zone, count(*) AS n, count(*) FILTER (WHERE {suppressed_sql()}) AS suppressed "
                "FROM campaign JOIN audience_member ON audience_member.audience_id = campaign.audience_id "
                "JOIN recipient ON recipient.id = audience_member.recipient_id "
                "WHERE campaign.id = :id GROUP BY recipient.time_zone ORDER BY recipient.time_zone"
            ),
            {"id": campaign.id},
        ).all()
    return Forecast(
        recipients=sum(row.n - row.suppressed for row in rows),
        suppressed=sum(row.suppressed for row in rows),
        due=tuple(
            Due(
                time_zone=row.time_zone,
                due_at=first.due_at(now, ZoneInfo(row.time_zone or campaign.time_zone)),
                recipients=row.n - row.suppressed,
            )
            for row in rows
        ),
    )


def advance(engine: sa.Engine, name: str, now: datetime, hash_of: Callable[[str], str] | None = None) -> int:
    """Plan the next email of everyone whose last one was accepted, and end what is suppressed.

    The due instant counts from the minute in which the email before was accepted. Returns how many were planned.
    """
    planned = 0
    with write(engine) as connection:
        campaign = find_campaign(connection, name, for_update=True)
        if campaign.state is not CampaignState.RUNNING:
            return 0
        emails = _emails(connection, campaign)
        for earlier, later in pairwise(emails):
            planned += _plan_next(connection, campaign, earlier, later)
        end_suppressed(connection, _id(campaign), now, hash_of)
    return planned


def _plan_next(connection: sa.Connection, campaign: Campaign, earlier: EmailPlan, later: EmailPlan) -> int:
    dialect = connection.dialect.name
    minute = (
        "strftime('%Y-%m-%d %H:%M:00.000000', earlier.settled_at)"
        if dialect == "sqlite"
        else "date_trunc('minute', earlier.settled_at)"
    )
    ids = {"campaign_id": campaign.id, "earlier_id": earlier.step_id, "later_id": later.step_id}
    groups = connection.execute(
        sa.text(f"SELECT DISTINCT recipient.time_zone, {minute} AS minute {_ACCEPTED.format(join='')}").columns(
            sa.column("time_zone", sa.Text()), sa.column("minute", UtcDateTime())
        ),
        ids,
    )
    due = [
        {
            "zone": zone or "",
            "minute": sql_instant(since, dialect),
            "due_at": sql_instant(later.due_at(since, ZoneInfo(zone or campaign.time_zone)), dialect),
        }
        for zone, since in groups
    ]
    columns: dict[str, sa.types.TypeEngine[Any]] = {"zone": sa.Text(), "minute": UtcDateTime(), "due_at": UtcDateTime()}
    item, parameters = json_rows(connection, "due", columns, due)
    insert = sa.text(
        "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim) "
        f"{_WITH_DUE.format(item=item)} "
        "SELECT :campaign_id, :later_id, earlier.recipient_id, 'planned', due.due_at, 0 "
        f"{_ACCEPTED.format(join='CROSS JOIN due')} "
        f"AND due.zone = COALESCE(recipient.time_zone, '') AND due.minute = {minute} "
        "ON CONFLICT (campaign_id, step_id, recipient_id) DO NOTHING"
    )
    return connection.execute(insert, {**ids, **parameters}).rowcount if due else 0
