"""Ends the waiting touches of a campaign in steps. Each step is a short transaction, and a crash may follow any step.

A transaction that only reads finds the touches of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa

from postroad.store.bulk import any_of, id_rows, json_rows
from postroad.store.engine import read, write
from postroad.store.enrolment import EnrolmentState, ExitReason
from postroad.store.enrolments.changes import exit_enrolments
from postroad.store.enrolments.pending import enrolment_page
from postroad.store.ledger import UNSENT, TouchState
from postroad.store.suppression import PERMISSION_AUDIENCE
from postroad.store.touch_page import touch_pages
from postroad.store.touches.ending import cancel_touches, suppress_touches
from postroad.store.touches.transitions import states_sql

STEP = 300
"""Touches that one transaction ends."""

LATE_NUMBERS = 5_000
"""At most so many suppressions with a smaller number than the last one read may be committed after it."""

HashOf = Callable[[str], str]


def _end(engine: sa.Engine, touch_ids: Sequence[int], state: TouchState, now: datetime) -> list[int]:
    end = cancel_touches if state is TouchState.CANCELLED else suppress_touches
    ended: list[int] = []
    for start in range(0, len(touch_ids), STEP):
        with write(engine) as connection:
            ended += end(connection, touch_ids[start : start + STEP], now)
    return ended


def cancel_waiting(engine: sa.Engine, campaign_id: int, now: datetime) -> int:
    """Cancel every touch of a cancelled campaign that is not on the wire, and end its enrolments. Idempotent.

    No touch of a cancelled campaign is planned or admitted, and no enrolment is added, so one pass suffices.

    Returns:
        The number of cancelled touches for which the queue may have jobs.
    """
    queued = cancel_waiting_touches(engine, campaign_id, now)
    _exit_enrolments(engine, campaign_id, now)
    return len(queued)


def cancel_waiting_touches(
    engine: sa.Engine, campaign_id: int, now: datetime, *, step_id: int | None = None
) -> list[int]:
    """Cancel every touch of a cancelled campaign, or of a recalled step, that is not on the wire. Idempotent.

    No touch of a cancelled campaign or a recalled step is planned or admitted, so one pass suffices.

    Args:
        engine: The database.
        campaign_id: The campaign.
        now: The time.
        step_id: The step. None: all steps.

    Returns:
        The cancelled touches for which the queue may have jobs.
    """
    queued: list[int] = []
    for page in touch_pages(engine, campaign_id, step_id=step_id):
        early = (TouchState.WITHHELD, TouchState.AWAITING, TouchState.PLANNED)
        planned = [touch.id for touch in page if touch.state in early]
        _end(engine, planned, TouchState.CANCELLED, now)
        waiting = [touch.id for touch in page if touch.state in (TouchState.QUEUED, TouchState.DEFERRED)]
        queued += _end(engine, waiting, TouchState.CANCELLED, now)
    return queued


def _exit_enrolments(engine: sa.Engine, campaign_id: int, now: datetime) -> None:
    after = 0
    while True:
        with read(engine) as connection:
            page = enrolment_page(connection, campaign_id, after=after)
        if not page:
            return
        after = page[-1].recipient_id
        active = [enrolment.id for enrolment in page if enrolment.state == EnrolmentState.ACTIVE]
        if active:
            with write(engine) as connection:
                exit_enrolments(connection, active, ExitReason.CANCELLED, now)


def complete_cancellations(engine: sa.Engine, now: datetime) -> int:
    """Cancel the waiting touches of all cancelled campaigns. Returns the number that may have jobs in the queue."""
    with read(engine) as connection:
        statement = sa.text(
            "SELECT campaign.id FROM campaign JOIN step ON step.campaign_id = campaign.id "
            "JOIN touch_count ON touch_count.step_id = step.id WHERE campaign.state = 'cancelled' "
            f"AND touch_count.state {states_sql(UNSENT)} "
            "GROUP BY campaign.id, touch_count.state HAVING sum(touch_count.touches) > 0 "
            "UNION SELECT campaign.id FROM campaign JOIN step ON step.campaign_id = campaign.id "
            "JOIN enrolment_count ON enrolment_count.step_id = step.id WHERE campaign.state = 'cancelled' "
            f"AND enrolment_count.state = '{EnrolmentState.ACTIVE}' "
            "GROUP BY campaign.id HAVING sum(enrolment_count.enrolments) > 0"
        )
        campaigns = set(connection.execute(statement).scalars())
    return sum(cancel_waiting(engine, campaign_id, now) for campaign_id in sorted(campaigns))


def last_suppression(connection: sa.Connection) -> int:
    """Return the number of the newest suppression; 0 without suppressions."""
    return int(connection.execute(sa.text("SELECT COALESCE(max(number), 0) FROM suppression")).scalar_one())


def end_suppressed(engine: sa.Engine, campaign_id: int, now: datetime, hash_of: HashOf | None = None) -> int:
    """End touches that wait for recipients who were suppressed since the last call.

    Without new suppressions it reads two numbers. It may miss a suppression that another transaction commits late;
    `postroad.store.touches.sending.admit` finds it.

    Args:
        engine: The database.
        campaign_id: The campaign.
        now: The time of the call.
        hash_of: Hashes an address, to find suppressions that are stored as hashes. None: these are not found.

    Returns:
        The number of touches that ended.
    """
    with read(engine) as connection:
        statement = sa.text(f"SELECT {PERMISSION_AUDIENCE}, suppressions_seen FROM campaign WHERE id = :id")
        audience_id, seen = connection.execute(statement, {"id": campaign_id}).one()
        newest = last_suppression(connection)
    if newest <= seen:
        return 0
    ended = 0
    unindexed: set[str] = set()  # Domains and hashes: no index finds their recipients.
    for keys in _suppressions(engine, audience_id, max(seen - LATE_NUMBERS, 0), newest):
        addresses = [key for key in keys if not key.startswith(("@", "#"))]
        unindexed.update(keys - set(addresses))
        if addresses:
            ended += len(_end(engine, _waiting_for(engine, campaign_id, addresses), TouchState.SUPPRESSED, now))
    if unindexed:
        ended += _end_matching(engine, campaign_id, unindexed, now, hash_of)
    with write(engine) as connection:
        noted = "UPDATE campaign SET suppressions_seen = :newest WHERE id = :id AND suppressions_seen < :newest"
        connection.execute(sa.text(noted), {"newest": newest, "id": campaign_id})
    return ended


def _suppressions(engine: sa.Engine, audience_id: int, after: int, until: int) -> Iterator[set[str]]:
    """Yield the suppressions of an audience in the order of their numbers, a step at a time."""
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
            f"WHERE campaign_id = :campaign_id AND state {states_sql(UNSENT)}"
        )
        return list(connection.execute(statement, {"campaign_id": campaign_id, **parameters}).scalars())


def _end_matching(
    engine: sa.Engine, campaign_id: int, keys: set[str], now: datetime, hash_of: HashOf | None = None
) -> int:
    """End waiting touches by domains and hashes. It compares a million touches in about a second, without a lock."""
    ended = 0
    for page in touch_pages(engine, campaign_id):
        waiting = [touch.id for touch in page if touch.state in UNSENT]
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
        ended += len(_end(engine, matching, TouchState.SUPPRESSED, now))
    return ended
