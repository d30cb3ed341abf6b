"""Counts of outcomes by minute, sender, provider and campaign; indexes of the console's lists.

A trigger counts each new event that names its receiver. The events and complaints of before are counted here, fifty
thousand at a time; those of the last eight days also get the names of their receivers, which the lists use.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

from postroad.store.types import UtcDateTime

revision = "0042"
down_revision = "0041"

_STEP = 50_000
_KEY = "grain, at, outcome, sender_id, provider, campaign_id, slot"
_MINUTE = r"substr({at}, 1, 16) || '\:00.000000'"  # of a time as SQLite stores it

# One statement for each row on SQLite, one for each statement on PostgreSQL.
_ADD = (
    f"INSERT INTO traffic ({_KEY}, events) VALUES ('minute', {{minute}}, {{outcome}}, NEW.sender_id, NEW.provider, "
    f"NEW.campaign_id, 0, 1) ON CONFLICT ({_KEY}) DO UPDATE SET events = events + 1;"
)
_SQLITE = (
    (
        "CREATE TRIGGER count_traffic AFTER INSERT ON delivery_event WHEN NEW.sender_id IS NOT NULL BEGIN "
        f"{_ADD.format(minute=_MINUTE.format(at='NEW.at'), outcome='NEW.state')} END"
    ),
    (
        "CREATE TRIGGER count_complaint AFTER UPDATE OF verdict ON bounce_mail "
        "WHEN NEW.verdict = 'complaint' AND OLD.verdict IS NOT 'complaint' AND NEW.sender_id IS NOT NULL BEGIN "
        f"{_ADD.format(minute=_MINUTE.format(at='NEW.received_at'), outcome=repr('complained'))} END"
    ),
)
_MERGE = f"ON CONFLICT ({_KEY}) DO UPDATE SET events = counted.events + excluded.events"
_POSTGRESQL = (
    f"""
    CREATE FUNCTION count_traffic() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO traffic AS counted ({_KEY}, events)
      SELECT 'minute', date_trunc('minute', at), state, sender_id, provider, campaign_id, pg_backend_pid(), count(*)
      FROM new_rows WHERE sender_id IS NOT NULL
      GROUP BY date_trunc('minute', at), state, sender_id, provider, campaign_id
      ORDER BY date_trunc('minute', at), state, sender_id, provider, campaign_id
      {_MERGE};
      RETURN NULL;
    END $$
    """,
    f"""
    CREATE FUNCTION count_complaint() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO traffic AS counted ({_KEY}, events)
      VALUES ('minute', date_trunc('minute', NEW.received_at), 'complained', NEW.sender_id, NEW.provider,
        NEW.campaign_id, pg_backend_pid(), 1) {_MERGE};
      RETURN NULL;
    END $$
    """,
    (
        "CREATE TRIGGER count_traffic AFTER INSERT ON delivery_event REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION count_traffic()"
    ),
    (
        "CREATE TRIGGER count_complaint AFTER UPDATE OF verdict ON bounce_mail FOR EACH ROW "
        "WHEN (NEW.verdict = 'complaint' AND OLD.verdict IS DISTINCT FROM 'complaint' AND NEW.sender_id IS NOT NULL) "
        "EXECUTE FUNCTION count_complaint()"
    ),
)

_OUTCOME_OF = (
    "SELECT touch.campaign_id, COALESCE(touch.sender_id, campaign.sender_id), COALESCE(mail_domain.provider, 'other') "
    "FROM touch CROSS JOIN campaign CROSS JOIN recipient "
    "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
    "WHERE campaign.id = touch.campaign_id AND recipient.id = touch.recipient_id AND touch.id = {table}.touch_id"
)
_NO_OUTCOME = "('unsubscribe', 'reply', 'complaint')"
"""Causes of events that are notes about a touch, and no outcomes."""

# Bucket and grain of an event by its age: whole days, hours of the last eight days, minutes of the last two.
_SQLITE_BUCKET = (
    "CASE WHEN {at} >= :two_days_ago THEN " + _MINUTE + " WHEN {at} >= :week_ago "
    r"THEN substr({at}, 1, 13) || '\:00:00.000000' ELSE substr({at}, 1, 10) || ' 00:00:00.000000' END"
)
_POSTGRESQL_BUCKET = (
    "CASE WHEN {at} >= :two_days_ago THEN date_trunc('minute', {at}, 'UTC') WHEN {at} >= :week_ago "
    "THEN date_trunc('hour', {at}, 'UTC') ELSE date_trunc('day', {at}, 'UTC') END"
)
_GRAIN = "CASE WHEN {at} >= :two_days_ago THEN 'minute' WHEN {at} >= :week_ago THEN 'hour' ELSE 'day' END"


def upgrade() -> None:
    connection = op.get_bind()
    _add_tables()
    week_ago = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=8)
    times = {"week_ago": week_ago, "two_days_ago": datetime.now(UTC) - timedelta(days=2)}
    first, last = connection.execute(sa.text("SELECT min(id), max(id) FROM delivery_event")).one()
    for start in range(first or 1, (last or 0) + 1, _STEP):
        _count_events(connection, times, start, start + _STEP)
    _count_complaints(connection, times)
    # After the rows of before, which they would count twice.
    for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)
    _add_indexes()


def _add_tables() -> None:
    op.create_table(
        "traffic",
        sa.Column("grain", sa.String(8), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("outcome", sa.String(24), nullable=False),
        sa.Column("sender_id", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.String(100), nullable=False),
        sa.Column("campaign_id", sa.BigInteger(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("grain", "at", "outcome", "sender_id", "provider", "campaign_id", "slot"),
        sqlite_with_rowid=False,
    )
    for table in ("delivery_event", "bounce_mail"):
        op.add_column(table, sa.Column("campaign_id", sa.BigInteger(), nullable=True))
        op.add_column(table, sa.Column("sender_id", sa.BigInteger(), nullable=True))
        op.add_column(table, sa.Column("provider", sa.String(100), nullable=True))
    op.add_column("touch", sa.Column("cause", sa.String(100), nullable=False, server_default=sa.text("''")))
    op.execute(
        "UPDATE touch SET cause = COALESCE((SELECT delivery_event.cause FROM delivery_event "
        "WHERE delivery_event.touch_id = touch.id AND delivery_event.state = touch.state "
        "ORDER BY delivery_event.at DESC, delivery_event.id DESC LIMIT 1), '') WHERE state IN ('dead', 'unknown')"
    )


def _count_events(connection: sa.Connection, times: dict[str, datetime], start: int, end: int) -> None:
    """Name the receivers of the recent ones of some events, and count all of them."""
    is_mine = f"id >= :start AND id < :end AND (cause IS NULL OR cause NOT IN {_NO_OUTCOME})"
    name = sa.text(
        "UPDATE delivery_event SET (campaign_id, sender_id, provider) = "
        f"({_OUTCOME_OF.format(table='delivery_event')}) WHERE {is_mine} AND at >= :week_ago"
    )
    mine = f"SELECT touch_id, at, state AS outcome FROM delivery_event WHERE {is_mine}"
    values = {"start": start, "end": end}
    connection.execute(_typed(name, times), {**values, "week_ago": times["week_ago"]})
    connection.execute(_typed(_count(connection, mine), times), {**values, **times})


def _count_complaints(connection: sa.Connection, times: dict[str, datetime]) -> None:
    name = (
        f"UPDATE bounce_mail SET (campaign_id, sender_id, provider) = ({_OUTCOME_OF.format(table='bounce_mail')}) "
        "WHERE touch_id IS NOT NULL AND verdict IS NOT NULL"
    )
    connection.execute(sa.text(name))
    mine = (
        "SELECT touch_id, received_at AS at, 'complained' AS outcome FROM bounce_mail "
        "WHERE verdict = 'complaint' AND touch_id IS NOT NULL"
    )
    connection.execute(_typed(_count(connection, mine), times), times)


def _count(connection: sa.Connection, mine: str) -> sa.TextClause:
    """Return the statement that counts rows with a touch, a time and an outcome."""
    bucket = _SQLITE_BUCKET if connection.dialect.name == "sqlite" else _POSTGRESQL_BUCKET
    return sa.text(
        f"INSERT INTO traffic AS counted ({_KEY}, events) "
        f"SELECT {_GRAIN.format(at='mine.at')} AS grain, {bucket.format(at='mine.at')} AS bucket, mine.outcome, "
        "COALESCE(touch.sender_id, campaign.sender_id) AS sender_id, "
        "COALESCE(mail_domain.provider, 'other') AS provider, touch.campaign_id, 0, count(*) "
        f"FROM ({mine}) AS mine CROSS JOIN touch CROSS JOIN campaign CROSS JOIN recipient "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain WHERE touch.id = mine.touch_id "
        "AND campaign.id = touch.campaign_id AND recipient.id = touch.recipient_id "
        f"GROUP BY 1, 2, 3, 4, 5, 6 {_MERGE}"
    )


def _typed(statement: sa.TextClause, times: dict[str, datetime]) -> sa.TextClause:
    used = [name for name in times if f":{name}" in statement.text]
    return statement.bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in used))


def _add_indexes() -> None:
    any_claim = sa.text("claim >= 0")
    op.create_index(
        "ix_touch_step_state",
        "touch",
        ["step_id", "state", "id"],
        sqlite_where=any_claim,
        postgresql_where=any_claim,
    )
    undecided = sa.text("state IN ('dead', 'unknown')")
    op.create_index(
        "ix_touch_undecided",
        "touch",
        ["state", "cause", "campaign_id", "id"],
        sqlite_where=undecided,
        postgresql_where=undecided,
    )
    named = sa.text("sender_id IS NOT NULL")
    op.create_index(
        "ix_delivery_event_receiver",
        "delivery_event",
        ["sender_id", "provider", "state", "at", "id"],
        sqlite_where=named,
        postgresql_where=named,
    )
    any_recipient = sa.text("recipient_id > 0")
    op.create_index(
        "ix_enrolment_step",
        "enrolment",
        ["step_id", "state", "why", "id"],
        sqlite_where=any_recipient,
        postgresql_where=any_recipient,
    )
    op.create_index("ix_bounce_mail_counts", "bounce_mail", ["received_at", "verdict", "rule"])
    op.create_index("ix_bounce_mail_rule", "bounce_mail", ["verdict", "rule", "received_at", "digest"])
