"""What an unsubscribe changes in the store, whichever way it came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postroad.settings import UnsubscribeScope
from postroad.store.ledger import record_unsubscribe
from postroad.store.suppression import EVERYWHERE, SuppressionReason, suppress, upgrade_reason
from postroad.store.touches.ending import suppress_touches_of


@dataclass(frozen=True, kw_only=True)
class Unsubscribed:
    """What came of it. ``first``: it had not been said of this touch before. ``suppressed``: the address was not yet.

    ``ended``: touches that waited, of which jobs may be on the queue.
    """

    first: bool
    suppressed: bool
    ended: tuple[int, ...]


# Of a touch that was deleted: its link has to work for good.
_PAST = sa.text(
    "SELECT recipient.id, recipient.address, campaign.audience_id FROM past_touch "
    "JOIN recipient ON recipient.id = past_touch.recipient_id "
    "JOIN campaign ON campaign.id = past_touch.campaign_id WHERE past_touch.id = :id"
)


def unsubscribe_touch(
    connection: sa.Connection, touch_id: int, source: str, now: datetime, scope: UnsubscribeScope
) -> Unsubscribed | None:
    """Suppress the recipient of a touch, note who said so, end what waits. Again: nothing more. None: no such touch."""
    whom = connection.execute(
        sa.text(
            "SELECT recipient.id, recipient.address, campaign.audience_id FROM touch "
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
        # It may have been suppressed for a bounce, which somebody might lift.
        upgrade_reason(connection, whom.address, SuppressionReason.UNSUBSCRIBE, source[:200])
    first = record_unsubscribe(connection, touch_id, source, now)
    ended = tuple(suppress_touches_of(connection, whom.id, now, audience_id))
    return Unsubscribed(first=first, suppressed=bool(new), ended=ended)
