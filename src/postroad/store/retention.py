"""Deletes rows that are older than their retention, a thousand rows in a transaction.

A transaction that only reads finds the old rows. Two kinds are never deleted: events of cause ``unsubscribe``, with
their touches, and touches in state ``unknown``. A touch is deleted only when its campaign is over and never runs again,
so that no launch, replay or rebuild can mail its recipient a second time. Its id, campaign and recipient are kept,
because the unsubscribe link in its message must work for good. Its count stays in ``touch_count``.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.bulk import any_of, found_sql, id_rows, json_rows
from postroad.store.engine import read, write
from postroad.store.enrolments.changes import delete_enrolments
from postroad.store.enrolments.pending import enrolment_page
from postroad.store.touch_page import touch_pages
from postroad.store.touches.ending import delete_touches
from postroad.store.types import BIG_ID, StoredRow, UtcDateTime

STEP = 1_000
"""Rows that one transaction deletes."""
ENROLMENTS = 500
"""Enrolments that one transaction deletes, with their counts."""


class PastTouch(StoredRow, table=True):
    """A deleted touch: its recipient and its campaign."""

    __tablename__ = "past_touch"

    id: int = Field(primary_key=True, sa_type=BIG_ID, sa_column_kwargs={"autoincrement": False})
    campaign_id: int = Field(sa_type=BIG_ID, foreign_key="campaign.id")
    recipient_id: int = Field(sa_type=BIG_ID, foreign_key="recipient.id")


class Deleted(NamedTuple):
    """Number of rows that a call deleted."""

    touches: int
    events: int
    bounce_effects: int


class Before(NamedTuple):
    """Rows that are older than these times are deleted."""

    touches: datetime
    events: datetime
    bounce_effects: datetime


def delete_old(engine: sa.Engine, before: Before, now: datetime, *, steps: int = 50) -> Deleted:
    """Delete old rows, at most ``steps`` steps of each kind. The next call continues. Raises UnavailableError."""
    effects = _delete_by_age(engine, "bounce_effect", _OLD_EFFECTS, before.bounce_effects, steps)
    events = _delete_by_age(engine, "delivery_event", _OLD_EVENTS, before.events, steps)
    return Deleted(_delete_touches(engine, before.touches, now, steps), events, effects)


def delete_old_mails(engine: sa.Engine, before: datetime, *, steps: int = 50) -> int:
    """Delete processed mails that were received before a time. The next call continues.

    Their digests are kept, so that a mail that is read again is known.

    Args:
        engine: The database.
        before: Not later than the time up to which effects are deleted: a mail with effects is kept.
        steps: Maximum number of steps.

    Returns:
        The number of deleted mails.

    Raises:
        UnavailableError: The database does not answer.
    """
    statement = sa.text(_OLD_MAILS).bindparams(sa.bindparam("before", type_=UtcDateTime()))
    deleted = 0
    for _ in range(steps):
        with read(engine) as connection:
            digests = list(connection.execute(statement, {"before": before, "limit": STEP}).scalars())
        if not digests:
            break
        with write(engine) as connection:
            rows = [{"digest": digest} for digest in digests]
            item, parameters = json_rows(connection, "old", {"digest": sa.Text()}, rows)
            old = any_of(connection, f"SELECT old.digest FROM {item}")
            keep = f"INSERT INTO past_bounce_mail (digest) SELECT digest FROM bounce_mail WHERE digest {old}"
            connection.execute(sa.text(keep), parameters)
            deleted += connection.execute(sa.text(f"DELETE FROM bounce_mail WHERE digest {old}"), parameters).rowcount
    return deleted


def delete_old_recipient_events(engine: sa.Engine, before: datetime, *, steps: int = 50) -> int:
    """Delete events of recipients from before a time. The next call continues.

    Args:
        engine: The database.
        before: The time.
        steps: Maximum number of steps.

    Returns:
        The number of deleted events.

    Raises:
        UnavailableError: The database does not answer.
    """
    return _delete_by_age(engine, "recipient_event", _OLD_RECIPIENT_EVENTS, before, steps)


# In the order of an index: if the first row is not old, no other row is read.
_OLD_EVENTS = (
    "SELECT id FROM delivery_event WHERE at < :before AND (cause IS NULL OR cause <> 'unsubscribe') "
    "ORDER BY at LIMIT :limit"
)
_OLD_RECIPIENT_EVENTS = "SELECT id FROM recipient_event WHERE at < :before ORDER BY at LIMIT :limit"
_OLD_EFFECTS = (
    "SELECT id FROM (SELECT id, at FROM bounce_effect ORDER BY id LIMIT :limit) AS oldest WHERE oldest.at < :before"
)
_OLD_MAILS = (
    "SELECT digest FROM bounce_mail WHERE received_at < :before AND processed_at IS NOT NULL "
    f"AND NOT {found_sql('bounce_effect WHERE bounce_effect.digest = bounce_mail.digest')} "
    "ORDER BY received_at LIMIT :limit"
)


def _delete_by_age(engine: sa.Engine, table: str, old: str, before: datetime, steps: int) -> int:
    statement = sa.text(old).bindparams(sa.bindparam("before", type_=UtcDateTime()))
    deleted = 0
    for _ in range(steps):
        with read(engine) as connection:
            ids = list(connection.execute(statement, {"before": before, "limit": STEP}).scalars())
        if not ids:
            break
        with write(engine) as connection:
            item, parameters = id_rows(connection, ids, "old")
            delete = sa.text(f"DELETE FROM {table} WHERE id {any_of(connection, f'SELECT old.id FROM {item}')}")
            deleted += connection.execute(delete, parameters).rowcount
    return deleted


def _delete_touches(engine: sa.Engine, before: datetime, now: datetime, steps: int) -> int:
    deleted = 0
    with read(engine) as connection:
        statement = sa.text(
            "SELECT id FROM campaign WHERE state IN ('finished', 'cancelled') AND emptied_at IS NULL "
            "AND COALESCE(finished_at, launched_at, created_at) < :before ORDER BY id"
        ).bindparams(sa.bindparam("before", type_=UtcDateTime()))
        campaigns = list(connection.execute(statement, {"before": before}).scalars())
    for campaign_id in campaigns:
        for page in touch_pages(engine, campaign_id):
            with write(engine) as connection:
                if not _is_over(connection, campaign_id):
                    break
                # SQLite gives the id after the largest again. The newest touch stays, so that links name one recipient.
                newest = connection.execute(sa.text("SELECT max(id) FROM touch")).scalar_one()
                deleted += delete_touches(connection, [touch.id for touch in page if touch.id != newest])
            steps -= 1
            if steps <= 0:
                return deleted
        else:
            if not _delete_enrolments(engine, campaign_id):
                continue
            with write(engine) as connection:
                emptied = sa.text("UPDATE campaign SET emptied_at = :now WHERE id = :id")
                emptied = emptied.bindparams(sa.bindparam("now", type_=UtcDateTime()))
                connection.execute(emptied, {"now": now, "id": campaign_id})
    return deleted


def _delete_enrolments(engine: sa.Engine, campaign_id: int) -> bool:
    """Delete the enrolments of a campaign whose touches are deleted. Return False if the campaign runs again."""
    after = 0
    while True:
        with read(engine) as connection:
            page = enrolment_page(connection, campaign_id, after=after, limit=ENROLMENTS)
        if not page:
            return True
        after = page[-1].recipient_id
        with write(engine) as connection:
            if not _is_over(connection, campaign_id):
                return False
            delete_enrolments(connection, [enrolment.id for enrolment in page])


def _is_over(connection: sa.Connection, campaign_id: int) -> bool:
    """Whether a campaign is over. Locks it until the transaction ends, because a replay may reopen it."""
    lock = "" if connection.dialect.name == "sqlite" else "FOR UPDATE"
    statement = sa.text(f"SELECT 1 FROM campaign WHERE id = :id AND state IN ('finished', 'cancelled') {lock}")
    return connection.execute(statement, {"id": campaign_id}).first() is not None
