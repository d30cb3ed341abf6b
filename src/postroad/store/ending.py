"""Ends touches of a campaign that wait, in steps. Each step is a short transaction, and may be the last before a crash.

What a step has to end is found by reading, outside any transaction that writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa

from postroad.store.bulk import any_of, id_rows, json_rows
from postroad.store.engine import read, write
from postroad.store.ledger import WAITING, TouchState
from postroad.store.touch_page import touch_pages
from postroad.store.touches.ending import cancel_touches, suppress_touches
from postroad.store.touches.transitions import states_sql

STEP = 500
"""Rows that one transaction moves."""

LATE_NUMBERS = 5_000
"""Suppressions with a smaller number than one that was seen may still be committed after it, though not many."""

HashOf = Callable[[str], str]


def _end(engine: sa.Engine, touch_ids: Sequence[int], state: TouchState, now: datetime) -> int:
    end = cancel_touches if state is TouchState.CANCELLED else suppress_touches
    ended = 0
    for start in range(0, len(touch_ids), STEP):
        with write(engine) as connection:
            ended += len(end(connection, touch_ids[start : start + STEP], now))
    return ended


def cancel_waiting(engine: sa.Engine, campaign_id: int, now: datetime) -> int:
    """End every touch of a campaign that is not on the wire. Returns how many of them may be on a queue.

    Call it when the campaign is cancelled. Nothing plans or admits touches of a cancelled campaign, so what one pass
    leaves stays ended. Interrupted, it may be called again.
    """
    queued = 0
    for page in touch_pages(engine, campaign_id):
        planned = [touch.id for touch in page if touch.state == TouchState.PLANNED]
        _end(engine, planned, TouchState.CANCELLED, now)
        waiting = [touch.id for touch in page if touch.state in (TouchState.QUEUED, TouchState.DEFERRED)]
        queued += _end(engine, waiting, TouchState.CANCELLED, now)
    return queued


def complete_cancellations(engine: sa.Engine, now: datetime) -> int:
    """End what waits of cancelled campaigns whose cancellation was interrupted. Returns how many may be on a queue."""
    with read(engine) as connection:
        statement = sa.text(
            "SELECT campaign.id FROM campaign JOIN step ON step.campaign_id = campaign.id "
            "JOIN touch_count ON touch_count.step_id = step.id WHERE campaign.state = 'cancelled' "
            f"AND touch_count.state {states_sql(WAITING)} "
            "GROUP BY campaign.id, touch_count.state HAVING sum(touch_count.touches) > 0"
        )
        campaigns = set(connection.execute(statement).scalars())
    return sum(cancel_waiting(engine, campaign_id, now) for campaign_id in sorted(campaigns))


def last_suppression(connection: sa.Connection) -> int:
    """Return the number of the newest suppression; 0: there are none."""
    return int(connection.execute(sa.text("SELECT COALESCE(max(number), 0) FROM suppression")).scalar_one())


def end_suppressed(engine: sa.Engine, campaign_id: int, now: datetime, hash_of: HashOf | None = None) -> int:
    """End touches that wait for recipients who were suppressed since the last call. Returns how many.

    Without new suppressions it reads two numbers. ``hash_of`` finds suppressions that are kept as hashes. What is
    missed, such as one that another transaction commits late, is found by `ledger.admit`.
    """
    with read(engine) as connection:
        statement = sa.text("SELECT audience_id, suppressions_seen FROM campaign WHERE id = :id")
        audience_id, seen = connection.execute(statement, {"id": campaign_id}).one()
        newest = last_suppression(connection)
    if newest <= seen:
        return 0
    ended = 0
    unindexed: set[str] = set()  # Domains and hashes: their recipients are not found by an index.
    for keys in _suppressions(engine, audience_id, max(seen - LATE_NUMBERS, 0), newest):
        addresses = [key for key in keys if not key.startswith(("@", "#"))]
        unindexed.update(keys - set(addresses))
        if addresses:
            ended += _end(engine, _waiting_for(engine, campaign_id, addresses), TouchState.SUPPRESSED, now)
    if unindexed:
        ended += _end_matching(engine, campaign_id, unindexed, now, hash_of)
    with write(engine) as connection:
        noted = "UPDATE campaign SET suppressions_seen = :newest WHERE id = :id AND suppressions_seen < :newest"
        connection.execute(sa.text(noted), {"newest": newest, "id": campaign_id})
    return ended


def _suppressions(engine: sa.Engine, audience_id: int, after: int, until: int) -> Iterator[set[str]]:
    """Yield what was suppressed for an audience, in steps, in the order in which it was."""
    statement = sa.text(
        "SELECT number, address, audience_id FROM suppression WHERE number > :after AND number <= :until "
        "ORDER BY number LIMIT :limit"
    )
    while True:
        with read(engine) as connection:
            rows = connection.execute(statement, {"after": after, "until": until, "limit": STEP}).all()
        if not rows:
            return
        after = rows[-1].number
        yield {row.address for row in rows if row.audience_id in (0, audience_id)}


def _waiting_for(engine: sa.Engine, campaign_id: int, addresses: Sequence[str]) -> list[int]:
    """Return touches of a campaign that wait for these addresses."""
    with read(engine) as connection:
        rows = [{"address": address} for address in addresses]
        item, parameters = json_rows(connection, "taken", {"address": sa.Text()}, rows)
        addressed = any_of(connection, f"SELECT taken.address FROM {item}")
        recipients = any_of(connection, f"SELECT id FROM recipient WHERE address {addressed}")
        # MATERIALIZED: a recipient has few touches, and a campaign has many.
        statement = sa.text(
            "WITH theirs AS MATERIALIZED "
            f"(SELECT id, campaign_id, state FROM touch WHERE recipient_id {recipients}) SELECT id FROM theirs "
            f"WHERE campaign_id = :campaign_id AND state {states_sql(WAITING)}"
        )
        return list(connection.execute(statement, {"campaign_id": campaign_id, **parameters}).scalars())


def _end_matching(
    engine: sa.Engine, campaign_id: int, keys: set[str], now: datetime, hash_of: HashOf | None = None
) -> int:
    """Compare every touch that waits with domains and hashes. About a second for a million, and no lock meanwhile."""
    ended = 0
    for page in touch_pages(engine, campaign_id):
        waiting = [touch.id for touch in page if touch.state in WAITING]
        if not waiting:
            continue
        with read(engine) as connection:
            item, parameters = id_rows(connection, waiting)
            statement = sa.text(
                f"SELECT touch.id, recipient.address, recipient.domain FROM {item} CROSS JOIN touch "
                "CROSS JOIN recipient WHERE touch.id = batch.id AND recipient.id = touch.recipient_id"
            )
            found = connection.execute(statement, parameters).all()
        matching = [
            row.id
            for row in found
            if f"@{row.domain}" in keys or (hash_of is not None and hash_of(row.address) in keys)
        ]
        ended += _end(engine, matching, TouchState.SUPPRESSED, now)
    return ended
