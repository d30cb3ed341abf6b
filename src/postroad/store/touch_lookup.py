"""Looks up touches by their ids, or by the recipient's address."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from postroad.store.bulk import any_of, id_rows
from postroad.store.campaign import CampaignState
from postroad.store.ledger import SENDER_OF_TOUCH, TouchState
from postroad.store.recipient import place_sql
from postroad.store.suppression import HOLDS_ALWAYS, PERMISSION_AUDIENCE, SuppressionReason, transactional_sql
from postroad.store.types import UtcDateTime

MAX_TOUCHES = 100


class FoundTouch(NamedTuple):
    """One touch, with its campaign and its recipient. ``zone``: the time zone in which ``sending_window`` holds.

    ``launched_at``, ``paused_at``, ``paused_by``, ``frequency``: of its campaign. ``provider``, ``site``: from the last
    DNS lookup. ``recalled_at``: of its step. ``route``: of its sender. ``own_zone``: the recipient's time zone, if
    known. ``country``, ``subdivision``: merge fields. ``transactional``: an unsubscribe does not hold it. ``share``:
    its share of a rollout. ``decides_at``: when the winner of its step's variants is decided at the latest.
    """

    id: int
    step_id: int
    state: TouchState
    due_at: datetime
    next_at: datetime | None
    settled_at: datetime | None
    reply: str | None
    address: str
    zone: str
    campaign: str
    campaign_state: CampaignState
    audience_id: int
    warmup: bool
    sending_window: dict[str, Any] | None
    step: str
    sender: str
    recipient_id: int
    campaign_id: int
    launched_at: datetime | None
    paused_at: datetime | None
    paused_by: str | None
    domain: str
    provider: str | None
    site: str | None
    own_zone: str | None = None
    country: str | None = None
    subdivision: str | None = None
    frequency: str | None = None
    transactional: bool = False
    first_due_at: datetime | None = None
    recalled_at: datetime | None = None
    route: str = ""
    share: int | None = None

    @property
    def delayed_since(self) -> datetime:
        """When it was due first. A frequency cap or a rollout may have moved ``due_at``."""
        return self.first_due_at or self.due_at

    variant: str | None = None
    waited_until: datetime | None = None
    decides_at: datetime | None = None

    @property
    def leaves_at(self) -> datetime:
        """When it may leave: when it is due, or later if it waited for its variant."""
        return self.due_at if self.waited_until is None else max(self.due_at, self.waited_until)


class FoundSuppression(NamedTuple):
    """Why an address is suppressed."""

    address: str
    reason: SuppressionReason
    source: str
    created_at: datetime


_TOUCHES = f"""
SELECT touch.id, touch.step_id, touch.state, touch.due_at, touch.next_at, touch.settled_at, touch.reply,
  recipient.address, COALESCE(recipient.time_zone, campaign.time_zone) AS zone,
  recipient.time_zone AS own_zone, {{place}}, campaign.name AS campaign,
  campaign.state AS campaign_state, {PERMISSION_AUDIENCE} AS audience_id, campaign.warmup, campaign.sending_window,
  step.name AS step, sender.address AS sender, touch.recipient_id, touch.campaign_id, campaign.launched_at,
  campaign.paused_at, campaign.paused_by, recipient.domain, mail_domain.provider, mail_domain.site, campaign.frequency,
  {transactional_sql("touch.request_id")} AS transactional, touch.first_due_at, step.recalled_at, sender.route,
  touch.variant, touch.waited_until, variant_test.decide_at AS decides_at, touch.share
FROM touch JOIN recipient ON recipient.id = touch.recipient_id JOIN campaign ON campaign.id = touch.campaign_id
JOIN step ON step.id = touch.step_id JOIN sender ON sender.id = {SENDER_OF_TOUCH}
LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain
LEFT JOIN variant_test ON variant_test.step_id = touch.step_id
WHERE {{where}} ORDER BY touch.id DESC LIMIT :limit
"""
_COLUMNS = (
    sa.column("id", sa.Integer()),
    sa.column("step_id", sa.Integer()),
    sa.column("state", sa.Text()),
    sa.column("due_at", UtcDateTime()),
    sa.column("next_at", UtcDateTime()),
    sa.column("settled_at", UtcDateTime()),
    sa.column("reply", sa.Text()),
    sa.column("address", sa.Text()),
    sa.column("zone", sa.Text()),
    sa.column("own_zone", sa.Text()),
    sa.column("country", sa.Text()),
    sa.column("subdivision", sa.Text()),
    sa.column("campaign", sa.Text()),
    sa.column("campaign_state", sa.Text()),
    sa.column("audience_id", sa.Integer()),
    sa.column("warmup", sa.Boolean()),
    sa.column("sending_window", sa.JSON()),
    sa.column("step", sa.Text()),
    sa.column("sender", sa.Text()),
    sa.column("recipient_id", sa.Integer()),
    sa.column("campaign_id", sa.Integer()),
    sa.column("launched_at", UtcDateTime()),
    sa.column("paused_at", UtcDateTime()),
    sa.column("paused_by", sa.Text()),
    sa.column("domain", sa.Text()),
    sa.column("provider", sa.Text()),
    sa.column("site", sa.Text()),
    sa.column("frequency", sa.Text()),
    sa.column("transactional", sa.Boolean()),
    sa.column("first_due_at", UtcDateTime()),
    sa.column("recalled_at", UtcDateTime()),
    sa.column("route", sa.Text()),
    sa.column("variant", sa.Text()),
    sa.column("waited_until", UtcDateTime()),
    sa.column("decides_at", UtcDateTime()),
    sa.column("share", sa.Integer()),
)


def touch_by_id(connection: sa.Connection, touch_id: int) -> FoundTouch | None:
    """Return one touch; None if the ledger does not have it."""
    found = _touches(connection, "touch.id = :id", {"id": touch_id, "limit": 1})
    return found[0] if found else None


def touches_by_ids(connection: sa.Connection, touch_ids: Sequence[int]) -> list[FoundTouch]:
    """Return these touches, the newest first. Touches that the ledger does not have are missing."""
    item, parameters = id_rows(connection, touch_ids)
    where = f"touch.id {any_of(connection, f'SELECT batch.id FROM {item}')}"
    return _touches(connection, where, {"limit": len(touch_ids), **parameters})


def touches_of_address(
    connection: sa.Connection, address: str, *, states: Sequence[TouchState] = tuple(TouchState), limit: int
) -> list[FoundTouch]:
    """Return the touches of a normalised address in these states, the newest first, at most ``limit``."""
    recipient_id = connection.execute(
        sa.text("SELECT id FROM recipient WHERE address = :address"), {"address": address}
    ).scalar()
    return [] if recipient_id is None else touches_of_recipient(connection, recipient_id, states=states, limit=limit)


def touches_of_recipient(
    connection: sa.Connection,
    recipient_id: int,
    *,
    states: Sequence[TouchState] = tuple(TouchState),
    campaign_id: int | None = None,
    limit: int,
) -> list[FoundTouch]:
    """Return the touches of a recipient in these states, the newest first.

    Args:
        connection: A connection in a transaction.
        recipient_id: The recipient.
        states: States of the touches.
        campaign_id: The campaign. None: all campaigns.
        limit: Maximum number of touches.
    """
    # The ids come first, and the sign hides the state from the planner: without both, PostgreSQL may walk the primary
    # key backwards or read an index of one state, and search a whole ledger for the touches of one person.
    of_campaign = "" if campaign_id is None else "AND campaign_id = :campaign_id"
    mine = sa.text(
        f"SELECT id FROM touch WHERE recipient_id = :recipient_id {of_campaign} AND state || '' IN :states"
    ).bindparams(sa.bindparam("states", [state.value for state in states], type_=sa.Text(), expanding=True))
    values = {"recipient_id": recipient_id, **({} if campaign_id is None else {"campaign_id": campaign_id})}
    newest = sorted(connection.execute(mine, values).scalars(), reverse=True)[:limit]
    return touches_by_ids(connection, newest) if newest else []


def _touches(connection: sa.Connection, where: str, values: dict[str, Any]) -> list[FoundTouch]:
    statement = sa.text(_TOUCHES.format(where=where, place=place_sql(connection)))
    return [
        FoundTouch(**{**row, "state": TouchState(row["state"]), "campaign_state": CampaignState(row["campaign_state"])})
        for row in connection.execute(statement.columns(*_COLUMNS), values).mappings()
    ]


def suppression_of(
    connection: sa.Connection, address: str, audience_id: int, hashed: str | None, *, transactional: bool = False
) -> FoundSuppression | None:
    """Return the suppression of an address in an audience: of the address, its domain or its hash.

    ``transactional``: only one that holds for transactional messages.
    """
    holds = f"AND {HOLDS_ALWAYS} " if transactional else ""
    reason = "COALESCE(also, reason)" if transactional else "reason"
    statement = sa.text(
        f"SELECT address, {reason} AS reason, source, created_at FROM suppression "
        f"WHERE address IN (:address, :domain, :hashed) AND audience_id IN (0, :audience_id) {holds}"
        "ORDER BY created_at LIMIT 1"
    ).columns(
        sa.column("address", sa.Text()),
        sa.column("reason", sa.Text()),
        sa.column("source", sa.Text()),
        sa.column("created_at", UtcDateTime()),
    )
    domain = f"@{address.rpartition('@')[2]}"
    values = {"address": address, "domain": domain, "hashed": hashed, "audience_id": audience_id}
    row = connection.execute(statement, values).one_or_none()
    return FoundSuppression(row.address, SuppressionReason(row.reason), row.source, row.created_at) if row else None
