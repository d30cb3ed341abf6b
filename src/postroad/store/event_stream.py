"""Reads ``delivery_event`` as a stream: rows in the order of their ids, each exactly once, none skipped.

On PostgreSQL a row takes its id before its transaction commits, so a row may appear below an id that was already read.
`EventHorizon` finds an id up to which no row can appear any more. It uses that an INSERT locks the table (ROW
EXCLUSIVE) before it takes ids, and releases the lock after its commit is visible: when every transaction that held the
lock after the greatest id was read has ended, all rows up to this id are visible. The lock table is only read, so no
writer waits. See docs/adr/0051. SQLite has one writer, so its ids become visible in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from hashlib import blake2b
from typing import Final, NamedTuple

import sqlalchemy as sa

from postroad.event_types import EventType
from postroad.store.bulk import any_of, id_rows
from postroad.store.engine import read
from postroad.store.ledger import COMPLAINT, REPLY, SENDER_OF_TOUCH, UNSUBSCRIBE, TouchState
from postroad.store.types import UtcDateTime

PAGE: Final = 1_000
"""Rows that one statement reads."""

_BY_CAUSE: Final = {
    UNSUBSCRIBE: EventType.UNSUBSCRIBED,
    REPLY: EventType.REPLIED,
    COMPLAINT: EventType.COMPLAINED,
}
_BY_STATE: Final = {
    TouchState.ACCEPTED: EventType.ACCEPTED,
    TouchState.DEFERRED: EventType.DEFERRED,
    TouchState.BOUNCED: EventType.BOUNCED,
    TouchState.DEAD: EventType.FAILED,
    TouchState.EXPIRED: EventType.EXPIRED,
    TouchState.SUPPRESSED: EventType.SUPPRESSED,
    TouchState.CANCELLED: EventType.CANCELLED,
    TouchState.SKIPPED: EventType.SKIPPED,
    TouchState.UNKNOWN: EventType.UNKNOWN,
}


def event_type(state: str, cause: str | None) -> EventType | None:
    """Return the type of a row of ``delivery_event``. None: it is not published, as that of a touch to send again."""
    by_cause = _BY_CAUSE.get(cause or "")
    return by_cause if by_cause is not None else _BY_STATE.get(TouchState(state))


def message_id(uid: str) -> str:
    """Return the published id of an event, from its unique id in the ledger. It is the same for each delivery."""
    return f"evt_{blake2b(uid.encode(), digest_size=16).hexdigest()}"


class EventHorizon:
    """Finds the id up to which all rows are visible. Each process has its own."""

    def __init__(self) -> None:
        self._settled = 0
        self._candidate = 0
        self._writers: frozenset[str] = frozenset()

    @property
    def is_waiting(self) -> bool:
        """Whether rows exist beyond the last result, whose order is not final."""
        return self._candidate > self._settled

    def find(self, engine: sa.Engine) -> int:
        """Return the greatest id up to which every row that will ever exist is visible to the next transaction.

        Args:
            engine: The database.

        Returns:
            The id. 0: no row is known to be final.

        Raises:
            UnavailableError: The database does not answer.
        """
        with read(engine) as connection:
            if connection.dialect.name == "sqlite":
                self._settled = self._candidate = newest_event(connection)
                return self._settled
            if self.is_waiting:
                self._writers &= _writers(connection)
            else:
                # The greatest id is read first: what holds the lock afterwards includes each writer below that id.
                self._candidate = newest_event(connection)
                self._writers = _writers(connection) if self._candidate > self._settled else frozenset()
            if not self._writers:
                self._settled = self._candidate
            return self._settled


def newest_event(connection: sa.Connection) -> int:
    """Return the greatest id that is visible. 0: there is no event."""
    return int(connection.execute(sa.text("SELECT COALESCE(max(id), 0) FROM delivery_event")).scalar_one())


_WRITERS: Final = sa.text(
    "SELECT DISTINCT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND relation = CAST('delivery_event' AS regclass) AND mode = 'RowExclusiveLock'"
)


def _writers(connection: sa.Connection) -> frozenset[str]:
    """Return the transactions that hold the lock with which rows are inserted. PostgreSQL only."""
    return frozenset(connection.execute(_WRITERS).scalars())


class StreamRow(NamedTuple):
    """One row of the stream. ``type`` None: the row is not published."""

    id: int
    message_id: str
    type: EventType | None


def stream_page(connection: sa.Connection, after: int, until: int, limit: int) -> list[StreamRow]:
    """Return the next rows of the stream, in its order.

    Args:
        connection: A connection in a transaction that began after ``until`` was found.
        after: The last id that was read.
        until: A result of `EventHorizon.find`.
        limit: Maximum number of rows.
    """
    statement = sa.text(
        "SELECT id, uid, state, cause FROM delivery_event WHERE id > :after AND id <= :until ORDER BY id LIMIT :limit"
    )
    rows = connection.execute(statement, {"after": after, "until": until, "limit": limit})
    return [StreamRow(row.id, message_id(row.uid), event_type(row.state, row.cause)) for row in rows]


class PublishedEvent(NamedTuple):
    """One event with what it is about, as endpoints and files get it. ``provider`` None: not known."""

    id: int
    message_id: str
    type: EventType
    at: datetime
    touch: int
    campaign: str
    step: str
    sender: str
    recipient: str
    provider: str | None
    attempt: int
    reply_code: int | None
    enhanced_code: str | None
    reply: str | None
    cause: str | None
    blame: str | None
    next_at: datetime | None


def _published_sql(connection: sa.Connection, events: str) -> str:
    """Return the SELECT of published events. ``events``: a SELECT of rows of ``delivery_event``.

    Each table is asked for the few rows that belong to them, so that PostgreSQL uses its index at any size.
    """
    touches = any_of(connection, "SELECT touch_id FROM event")
    recipients = any_of(connection, "SELECT recipient_id FROM its_touch")
    domains = any_of(connection, "SELECT domain FROM its_recipient")
    return (
        f"WITH event AS MATERIALIZED ({events}), its_touch AS MATERIALIZED "
        f"(SELECT id, campaign_id, step_id, recipient_id, sender_id FROM touch WHERE id {touches}), "
        f"its_recipient AS MATERIALIZED (SELECT id, address, domain FROM recipient WHERE id {recipients}), "
        f"its_domain AS MATERIALIZED (SELECT domain, provider FROM mail_domain WHERE domain {domains}) "
        "SELECT event.id, event.uid, event.state, event.cause, event.at, event.touch_id, campaign.name AS campaign, "
        "step.name AS step, sender.address AS sender, its_recipient.address AS recipient, its_domain.provider, "
        "event.attempt, event.reply_code, event.enhanced_code, event.reply, event.blame, event.next_at "
        "FROM event JOIN its_touch AS touch ON touch.id = event.touch_id "
        "JOIN campaign ON campaign.id = touch.campaign_id "
        f"JOIN sender ON sender.id = {SENDER_OF_TOUCH} JOIN step ON step.id = touch.step_id "
        "JOIN its_recipient ON its_recipient.id = touch.recipient_id "
        "LEFT JOIN its_domain ON its_domain.domain = its_recipient.domain ORDER BY event.id"
    )


_TIMES: Final = (sa.column("at", UtcDateTime()), sa.column("next_at", UtcDateTime()))
_COLUMNS: Final = (
    *(sa.column(name) for name in ("id", "uid", "state", "cause")),
    _TIMES[0],
    *(sa.column(name) for name in ("touch_id", "campaign", "step", "sender", "recipient", "provider", "attempt")),
    *(sa.column(name) for name in ("reply_code", "enhanced_code", "reply", "blame")),
    _TIMES[1],
)


def _published(row: sa.Row[tuple[object, ...]]) -> PublishedEvent | None:
    values = row._asdict()
    kind = event_type(values.pop("state"), values["cause"])
    if kind is None:
        return None
    return PublishedEvent(
        **values | {"message_id": message_id(values.pop("uid")), "type": kind, "touch": values.pop("touch_id")}
    )


def published_events(connection: sa.Connection, ids: list[int]) -> dict[int, PublishedEvent]:
    """Return published events by their ids. One that does not exist, or is not published, is absent."""
    item, parameters = id_rows(connection, ids)
    source = f"SELECT * FROM delivery_event WHERE id {any_of(connection, f'SELECT batch.id FROM {item}')}"
    statement = sa.text(_published_sql(connection, source)).columns(*_COLUMNS)
    found = (_published(row) for row in connection.execute(statement, parameters))
    return {event.id: event for event in found if event is not None}


_PAGE_OF_EVENTS: Final = "SELECT * FROM delivery_event WHERE id > :after AND id <= :until ORDER BY id LIMIT :limit"


def published_pages(
    engine: sa.Engine, after: int, until: int, page: int = PAGE
) -> Iterator[tuple[int, list[PublishedEvent]]]:
    """Yield the published events of the stream, a page at a time, in its order, with the last id of each page.

    No transaction is open while a page is used, so a slow reader holds back no vacuum and no checkpoint.

    Args:
        engine: The database.
        after: The last id that was read.
        until: A result of `EventHorizon.find`.
        page: Rows of one page.

    Raises:
        UnavailableError: The database does not answer.
    """
    last = sa.text(
        "SELECT max(id) FROM (SELECT id FROM delivery_event WHERE id > :after AND id <= :until "
        "ORDER BY id LIMIT :limit) AS page"
    )
    while after < until:
        values = {"after": after, "until": until, "limit": page}
        with read(engine) as connection:
            statement = sa.text(_published_sql(connection, _PAGE_OF_EVENTS)).columns(*_COLUMNS)
            end = connection.execute(last, values).scalar()
            rows = connection.execute(statement, values).all() if end is not None else []
        if end is None:
            return
        yield end, [event for event in map(_published, rows) if event is not None]
        after = end


def event_before(connection: sa.Connection, since: datetime) -> int:
    """Return the greatest id of which no event from ``since`` on is at or below it.

    Ids follow the order in which events were recorded, which is not exactly that of their times.

    Args:
        connection: A connection in a transaction.
        since: The time.

    Returns:
        The id after which the stream contains all events from this time on, and some earlier ones.
    """
    statement = sa.text("SELECT min(id) FROM delivery_event WHERE at >= :since").bindparams(
        sa.bindparam("since", type_=UtcDateTime())
    )
    first = connection.execute(statement, {"since": since}).scalar()
    return newest_event(connection) if first is None else int(first) - 1
