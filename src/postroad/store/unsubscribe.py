"""Applies an unsubscribe to the store, whatever its source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postroad.settings import UnsubscribeScope
from postroad.store.enrolments.changes import exit_suppressed
from postroad.store.ledger import record_unsubscribe
from postroad.store.suppression import EVERYWHERE, PERMISSION_AUDIENCE, SuppressionReason, suppress, upgrade_reason
from postroad.store.touches.ending import suppress_touches_of


@dataclass(frozen=True, kw_only=True)
class Unsubscribed:
    """What an unsubscribe changed.

    ``first``: the touch had no unsubscribe before. ``suppressed``: the address was not suppressed before. ``ended``:
    touches that waited; the queue may have jobs for them.
    """

    first: bool
    suppressed: bool
    ended: tuple[int, ...]


# For a deleted touch: its link must work for good.
_PAST = sa.text(
    "SELECT recipient.id, recipient.address, "
    f"{PERMISSION_AUDIENCE} AS audience_id FROM past_touch "
    "JOIN recipient ON recipient.id = past_touch.recipient_id "
    "JOIN campaign ON campaign.id = past_touch.campaign_id WHERE past_touch.id = :id"
)


def unsubscribe_touch(
    connection: sa.Connection, touch_id: int, source: str, now: datetime, scope: UnsubscribeScope
) -> Unsubscribed | None:
    """Suppress the recipient of a touch and end its waiting touches. Idempotent. Returns None without such a touch."""
    whom = connection.execute(
        sa.text(
            "SELECT recipient.id, recipient.address, "
            f"{PERMISSION_AUDIENCE} AS audience_id FROM touch "
            "JOIN recipient ON recipient.id = touch.recipient_id "
            "JOIN campaign ON campaign.id = touch.campaign_id WHERE touch.id = :id"
        ),
        {"id": touch_id},
    ).one_or_none()
    if whom is None:
        whom = connection.execute(_PAST, {"id": touch_id}).one_or_none()
    if whom is None:
        return None
    audience_id = EVERYWHERE if scope is UnsubscribeScope.EVERYWHERE else whom.audience_id
    new = suppress(connection, [whom.address], SuppressionReason.UNSUBSCRIBE, source[:200], now, audience_id)
    if audience_id == EVERYWHERE:
        # It may be suppressed for a bounce, and such a suppression may be lifted.
        upgrade_reason(connection, whom.address, SuppressionReason.UNSUBSCRIBE, source[:200])
    first = record_unsubscribe(connection, touch_id, source, now)
    ended = tuple(suppress_touches_of(connection, whom.id, now, audience_id, unsubscribed=True))
    exit_suppressed(connection, whom.id, now, audience_id)
    return Unsubscribed(first=first, suppressed=bool(new), ended=ended)
