"""Number of outcomes by minute, sender, mailbox provider and campaign, so that a page need not read the events.

`postroad.store.outcome_event` counts each row of ``delivery_event`` that names its receiver, and a trigger each
complaint, in the transaction that inserts it: see docs/adr. An event that is read twice is inserted once, and so counts
once. A later outcome of the same message, such as a bounce after its acceptance, is an event of its own; the earlier
one did happen, and stays.

`fold_traffic` keeps the table small: minutes become hours, and hours become days. A sum over a period is the same
before and after, if the period begins where a bucket of its age begins: see `bucket_start`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.engine import read, write
from postroad.store.types import StoredRow, UtcDateTime

STEP: Final = 1_000
"""Rows after which a step of `fold_traffic` ends, with the bucket that it is in."""

MINUTES_KEPT: Final = timedelta(hours=3)
"""Age from which on minutes are folded into hours."""
TOTALS_KEPT: Final = timedelta(hours=49)
"""Age up to which the total of each minute is kept."""
HOURS_KEPT: Final = timedelta(days=8)
"""Age from which on hours are folded into days."""


class Grain(StrEnum):
    """What one row counts."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    TOTAL = "total"  # the events of a minute, of all senders, providers and campaigns


DETAIL: Final = (Grain.MINUTE, Grain.HOUR, Grain.DAY)
"""The grains whose sum is the number of events."""

TRAFFIC_KEY: Final = "grain, at, outcome, sender_id, provider, campaign_id, slot"
MERGE_TRAFFIC: Final = f"ON CONFLICT ({TRAFFIC_KEY}) DO UPDATE SET events = counted.events + excluded.events"
"""End of an INSERT into ``traffic AS counted`` that adds to the rows that exist."""


class Traffic(StoredRow, table=True):
    """A part of the number of outcomes in one bucket: the number is the sum of all grains of `DETAIL` and all slots.

    ``slot``: on PostgreSQL the process id of the connection that counted, so that no transaction waits for the counts
    of another one; 0 on SQLite, and for folded rows. A total has no sender, provider and campaign, and no complaints.
    """

    __tablename__ = "traffic"
    __table_args__ = (sa.Index("ix_traffic_campaign", "campaign_id", "grain", "at"), {"sqlite_with_rowid": False})

    grain: str = Field(primary_key=True, sa_type=sa.String(8))
    at: datetime = Field(primary_key=True, sa_type=UtcDateTime, description="begin of the bucket")
    outcome: str = Field(primary_key=True, sa_type=sa.String(24))
    sender_id: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    provider: str = Field(primary_key=True, sa_type=sa.String(100))
    campaign_id: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    slot: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    events: int = Field(sa_type=sa.BigInteger)


def bucket_start(since: datetime, now: datetime) -> datetime:
    """Return the begin of the bucket that a time is in: a minute, an hour or a UTC day, by its age.

    A period that begins there has the same sum before and after a fold.
    """
    since = since.astimezone(UTC)
    hour = since.replace(minute=0, second=0, microsecond=0)
    if since < now - HOURS_KEPT:
        return hour.replace(hour=0)
    return hour if since < now - MINUTES_KEPT else since.replace(second=0, microsecond=0)


class MinuteTraffic(NamedTuple):
    """Outcomes of one minute, of all senders. ``at``: its begin."""

    at: datetime
    accepted: int
    deferred: int
    bounced: int


def traffic_by_minute(connection: sa.Connection, since: datetime) -> list[MinuteTraffic]:
    """Return the outcomes of each minute since a time, in order. Minutes without any are missing.

    Args:
        connection: A connection in a transaction.
        since: The begin, at most `TOTALS_KEPT` ago.
    """
    statement = sa.text(
        "SELECT at, CAST(sum(CASE WHEN outcome = 'accepted' THEN events ELSE 0 END) AS BIGINT) AS accepted, "
        "CAST(sum(CASE WHEN outcome = 'deferred' THEN events ELSE 0 END) AS BIGINT) AS deferred, "
        "CAST(sum(CASE WHEN outcome = 'bounced' THEN events ELSE 0 END) AS BIGINT) AS bounced FROM traffic "
        f"WHERE grain = '{Grain.TOTAL}' AND at >= :since GROUP BY at ORDER BY at"
    )
    typed = statement.bindparams(sa.bindparam("since", type_=UtcDateTime())).columns(sa.column("at", UtcDateTime()))
    rows = connection.execute(typed, {"since": since.replace(second=0, microsecond=0)})
    return [MinuteTraffic(*row) for row in rows]  # Not sums as Decimal, which take longer to read than to add.


class ReceiverCount(NamedTuple):
    """Number of outcomes of one kind, from one sender to one mailbox provider."""

    sender_id: int
    provider: str
    outcome: str
    events: int


def traffic_by_receiver(
    connection: sa.Connection, since: datetime, *, sender_ids: Sequence[int] | None = None
) -> list[ReceiverCount]:
    """Return the outcomes since a time by sender and mailbox provider. ``since``: see `bucket_start`."""
    of_senders = "" if sender_ids is None else "AND sender_id IN :sender_ids "
    statement = sa.text(
        "SELECT sender_id, provider, outcome, sum(events) AS n FROM traffic "
        f"WHERE grain IN ({_quoted(DETAIL)}) AND at >= :since {of_senders}"
        "GROUP BY sender_id, provider, outcome"
    ).bindparams(sa.bindparam("since", type_=UtcDateTime()))
    values: dict[str, object] = {"since": since}
    if sender_ids is not None:
        statement = statement.bindparams(sa.bindparam("sender_ids", expanding=True))
        values["sender_ids"] = list(sender_ids)
    rows = connection.execute(statement, values)
    return [ReceiverCount(row.sender_id, row.provider, row.outcome, int(row.n)) for row in rows]


def traffic_of_receiver(
    connection: sa.Connection, since: datetime, *, sender_id: int, provider: str, outcome: str
) -> int:
    """Return the number of outcomes of one kind from a sender to a provider. ``since``: see `bucket_start`."""
    statement = sa.text(
        f"SELECT COALESCE(sum(events), 0) FROM traffic WHERE grain IN ({_quoted(DETAIL)}) AND at >= :since "
        "AND sender_id = :sender_id AND provider = :provider AND outcome = :outcome"
    ).bindparams(sa.bindparam("since", type_=UtcDateTime()))
    values = {"since": since, "sender_id": sender_id, "provider": provider, "outcome": outcome}
    return int(connection.execute(statement, values).scalar_one())


class CampaignHour(NamedTuple):
    """Outcomes of one campaign in one hour. ``at``: its begin."""

    at: datetime
    accepted: int
    deferred: int
    bounced: int


def traffic_of_campaign(connection: sa.Connection, campaign_id: int, since: datetime) -> list[CampaignHour]:
    """Return the outcomes of a campaign by hour, in order. ``since``: at most `HOURS_KEPT` ago, see `bucket_start`."""
    statement = sa.text(
        f"SELECT {_bucket(connection, Grain.HOUR)} AS hour, outcome, sum(events) AS n FROM traffic "
        f"WHERE grain IN ({_quoted((Grain.MINUTE, Grain.HOUR))}) AND at >= :since AND campaign_id = :campaign_id "
        "GROUP BY hour, outcome ORDER BY hour"
    )
    typed = statement.bindparams(sa.bindparam("since", type_=UtcDateTime())).columns(
        sa.column("hour", UtcDateTime()), sa.column("outcome", sa.Text()), sa.column("n", sa.Integer())
    )
    counts: dict[datetime, dict[str, int]] = {}
    for row in connection.execute(typed, {"since": since, "campaign_id": campaign_id}):
        counts.setdefault(row.hour, {})[row.outcome] = int(row.n)
    return [
        CampaignHour(at, *(outcomes.get(name, 0) for name in ("accepted", "deferred", "bounced")))
        for at, outcomes in counts.items()
    ]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def fold_traffic(engine: sa.Engine, now: datetime, keep_days_since: datetime, *, steps: int = 50) -> int:
    """Fold old minutes into hours and old hours into days, and delete totals and days that are too old.

    A step is a transaction of about a thousand rows. The next call continues. It may run at any time and several times
    at once: a row is deleted in the statement that adds it to its bucket.

    Args:
        engine: The database.
        now: The time.
        keep_days_since: Days before this time are deleted.
        steps: Maximum number of steps of each kind.

    Returns:
        The number of rows that were folded or deleted.

    Raises:
        UnavailableError: The database does not answer.
    """
    now = now.astimezone(UTC)
    midnight = (now - HOURS_KEPT).replace(hour=0, minute=0, second=0, microsecond=0)
    hour = (now - MINUTES_KEPT).replace(minute=0, second=0, microsecond=0)
    folded = 0
    for grain, before in (
        (Grain.MINUTE, hour),
        (Grain.HOUR, midnight),
        (Grain.TOTAL, now - TOTALS_KEPT),
        (Grain.DAY, keep_days_since),
    ):
        for _ in range(steps):
            with read(engine) as connection:
                until = _end_of_step(connection, grain, before)
            if until is None:
                break
            with write(engine) as connection:
                folded += _fold(connection, grain, until)
    return folded


def _end_of_step(connection: sa.Connection, grain: Grain, before: datetime) -> datetime | None:
    """Return the last bucket of the next step; None if no row of the grain is old."""
    statement = sa.text(
        "SELECT at FROM (SELECT at FROM traffic WHERE grain = :grain AND at < :before ORDER BY at LIMIT :step) AS old "
        "ORDER BY at DESC LIMIT 1"
    )
    typed = statement.bindparams(sa.bindparam("before", type_=UtcDateTime())).columns(sa.column("at", UtcDateTime()))
    return connection.execute(typed, {"grain": grain.value, "before": before, "step": STEP}).scalar_one_or_none()


_COARSER = {Grain.MINUTE: Grain.HOUR, Grain.HOUR: Grain.DAY}
_RECEIVER = "outcome, sender_id, provider, campaign_id"


def _bucket(connection: sa.Connection, grain: Grain) -> str:
    """Return SQL of the begin of the bucket that the column ``at`` is in, of an hour or a day."""
    if connection.dialect.name == "sqlite":
        length, rest = {Grain.HOUR: (13, r"\:00\:00.000000"), Grain.DAY: (10, " 00:00:00.000000")}[grain]
        return f"substr(at, 1, {length}) || '{rest}'"
    return f"date_trunc('{grain}', at, 'UTC')"


def _fold(connection: sa.Connection, grain: Grain, until: datetime) -> int:
    """Delete the rows of a grain up to a bucket, and add them to the coarser grain. Returns the number of rows."""
    old, coarser = "grain = :grain AND at <= :until", _COARSER.get(grain)
    rows = f"traffic WHERE {old}" if connection.dialect.name == "sqlite" else "gone WHERE true"
    insert = (
        ""
        if coarser is None
        else (
            f"INSERT INTO traffic AS counted ({TRAFFIC_KEY}, events) "
            f"SELECT '{coarser}', {_bucket(connection, coarser)} AS bucket, {_RECEIVER}, 0, sum(events) "
            f"FROM {rows} GROUP BY bucket, {_RECEIVER} {MERGE_TRAFFIC}"
        )
    )
    values = {"grain": grain.value, "until": until}
    if connection.dialect.name == "sqlite":
        # It has one writer: no row changes between the statements.
        if insert:
            connection.execute(_until(insert), values)
        return connection.execute(_until(f"DELETE FROM traffic WHERE {old}"), values).rowcount
    gone = f"gone AS (DELETE FROM traffic WHERE {old} RETURNING at, {_RECEIVER}, events)"
    added = f", added AS ({insert})" if insert else ""
    return int(connection.execute(_until(f"WITH {gone}{added} SELECT count(*) FROM gone"), values).scalar_one())


def _until(statement: str) -> sa.TextClause:
    return sa.text(statement).bindparams(sa.bindparam("until", type_=UtcDateTime()))
