"""Warmup: one row for each day of an identity at a mailbox provider, and the overrides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.store.bulk import json_rows
from postroad.store.ledger import IS_DELIVERY, SENDER_OF_TOUCH
from postroad.store.types import BIG_ID, StoredRow, UtcDateTime, sql_time, upsert_into

_LOCK_KEY = 0x7761726D  # key of PostgreSQL's advisory lock: a number that no other user of this database takes


class WarmupDayRow(StoredRow, table=True):
    """One day of one identity at one mailbox provider: its cap, the reason, and the results of its mail."""

    __tablename__ = "warmup_day"

    identity: str = Field(primary_key=True, sa_type=sa.String(320), description="address, domain or source address")
    provider: str = Field(primary_key=True, sa_type=sa.String(100))
    day: date = Field(primary_key=True, description="in the zone of the sender's warmup")
    cap: int = Field(sa_type=sa.BigInteger, description="maximum number of messages of this day")
    move: str = Field(sa_type=sa.String(16), description="the decision")
    reason: str = Field(sa_type=sa.String(500))
    paused_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    decided_at: datetime = Field(sa_type=UtcDateTime)
    attempts: int = Field(default=0, sa_type=sa.BigInteger)
    accepted: int = Field(default=0, sa_type=sa.BigInteger)
    bounced: int = Field(default=0, sa_type=sa.BigInteger)
    complained: int = Field(default=0, sa_type=sa.BigInteger)
    deferred: int = Field(default=0, sa_type=sa.BigInteger)
    blocked: int = Field(default=0, sa_type=sa.BigInteger)


class WarmupOverride(StoredRow, table=True):
    """One cap that a person set."""

    __tablename__ = "warmup_override"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    identity: str = Field(sa_type=sa.String(320))
    provider: str = Field(sa_type=sa.String(100))
    day: date
    cap: int = Field(sa_type=sa.BigInteger)
    by: str = Field(sa_type=sa.String(100))
    why: str = Field(sa_type=sa.String(500))
    at: datetime = Field(sa_type=UtcDateTime)


_KEY = ("identity", "provider", "day")
_DECIDED = ("cap", "move", "reason", "paused_until", "decided_at")
COUNTED = ("attempts", "accepted", "bounced", "complained", "deferred", "blocked")


def acquire_lock(connection: sa.Connection) -> None:
    """Lock the decisions until the transaction ends. On SQLite only one transaction writes at a time."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})


def days_of(connection: sa.Connection, identities: Sequence[str], *, since: date) -> list[WarmupDayRow]:
    """Return the days of these identities, by identity, provider and day."""
    session = Session(connection)
    statement = (
        select(WarmupDayRow)
        .where(col(WarmupDayRow.identity).in_(identities), col(WarmupDayRow.day) >= since)
        .order_by(col(WarmupDayRow.identity), col(WarmupDayRow.provider), col(WarmupDayRow.day))
    )
    found = list(session.exec(statement))
    session.expunge_all()
    return found


def newest_days(connection: sa.Connection, identities: Sequence[str]) -> list[WarmupDayRow]:
    """Return the last day of each of these identities at each provider."""
    session = Session(connection)
    last = (
        sa.select(
            col(WarmupDayRow.identity), col(WarmupDayRow.provider), sa.func.max(col(WarmupDayRow.day)).label("day")
        )
        .where(col(WarmupDayRow.identity).in_(identities))
        .group_by(col(WarmupDayRow.identity), col(WarmupDayRow.provider))
        .subquery()
    )
    statement = select(WarmupDayRow).join(
        last,
        sa.and_(
            last.c.identity == WarmupDayRow.identity,
            last.c.provider == WarmupDayRow.provider,
            last.c.day == WarmupDayRow.day,
        ),
    )
    found = list(session.exec(statement))
    session.expunge_all()
    return found


def save_days(connection: sa.Connection, rows: Sequence[WarmupDayRow]) -> None:
    """Insert days. Of an existing day only the counts are updated; its decision is kept."""
    _put(connection, rows, COUNTED)


def override_day(connection: sa.Connection, override: WarmupOverride, row: WarmupDayRow) -> None:
    """Record who set a cap and why, and replace the decision of the day."""
    connection.execute(sa.insert(WarmupOverride).values(**override.model_dump(exclude={"id"})))
    _put(connection, [row], _DECIDED)


def _put(connection: sa.Connection, rows: Sequence[WarmupDayRow], otherwise: Sequence[str]) -> None:
    if not rows:
        return
    statement = upsert_into(connection, WarmupDayRow)
    statement = statement.on_conflict_do_update(
        index_elements=list(_KEY), set_={name: statement.excluded[name] for name in otherwise}
    )
    connection.execute(statement, [row.model_dump() for row in rows])


def overrides_of(connection: sa.Connection, identities: Sequence[str]) -> list[WarmupOverride]:
    """Return the overrides, the newest first."""
    session = Session(connection)
    statement = (
        select(WarmupOverride)
        .where(col(WarmupOverride.identity).in_(identities))
        .order_by(col(WarmupOverride.id).desc())
    )
    found = list(session.exec(statement))
    session.expunge_all()
    return found


class Span(NamedTuple):
    """A day in a time zone, as times. ``until`` is excluded."""

    day: date
    since: datetime
    until: datetime


class SentMail(NamedTuple):
    """Results of the attempts to one domain within a span. ``provider``: from the last DNS lookup, if any."""

    day: date
    domain: str
    provider: str | None
    attempts: int
    accepted: int
    bounced: int
    deferred: int
    blocked: int


class Complaints(NamedTuple):
    """Number of recipients of one domain who complained within a span."""

    day: date
    domain: str
    provider: str | None
    recipients: int


_SEEDS = {None: "", True: "AND campaign.warmup", False: "AND NOT campaign.warmup"}


def sent_mail(
    connection: sa.Connection,
    senders: Sequence[str],
    spans: Sequence[Span],
    *,
    hard_causes: Sequence[str],
    seeds: bool | None = None,
) -> list[SentMail]:
    """Count the results of these senders' mail by day, domain and provider.

    Args:
        connection: A connection in a transaction.
        senders: The From addresses.
        spans: The days.
        hard_causes: Causes of bounces that mean "no such mailbox".
        seeds: True: only mail to seed lists. False: only other mail. None: all mail.

    Returns:
        The counts. A message that did not reach a receiver, through our fault or a cancellation, is no attempt. A
        bounce that a later report shows counts on the day of the report.
    """
    item, parameters = _spans(connection, spans)
    statement = sa.text(
        "SELECT span.day, recipient.domain, mail_domain.provider, count(*), "
        "sum(CASE WHEN e.state = 'accepted' THEN 1 ELSE 0 END), "
        "sum(CASE WHEN e.state = 'bounced' AND (e.cause IN :hard OR e.enhanced_code LIKE '5.1.%') THEN 1 ELSE 0 END), "
        "sum(CASE WHEN e.state = 'deferred' THEN 1 ELSE 0 END), "
        "sum(CASE WHEN e.state IN ('dead', 'bounced') AND e.blame = 'sender' THEN 1 ELSE 0 END) "
        f"FROM delivery_event AS e JOIN {item} ON e.at >= span.since AND e.at < span.until "
        "JOIN touch ON touch.id = e.touch_id "
        f"JOIN campaign ON campaign.id = touch.campaign_id JOIN sender ON sender.id = {SENDER_OF_TOUCH} "
        "JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        f"WHERE sender.address IN :senders {_SEEDS[seeds]} AND {IS_DELIVERY} "
        "AND (e.state IN ('accepted', 'bounced', 'unknown') "
        "OR (e.state IN ('deferred', 'dead') AND e.reply_code IS NOT NULL AND COALESCE(e.blame, '') <> 'us')) "
        "GROUP BY span.day, recipient.domain, mail_domain.provider"
    ).bindparams(
        sa.bindparam("senders", list(senders), type_=sa.Text(), expanding=True),
        sa.bindparam("hard", list(hard_causes), type_=sa.Text(), expanding=True),
    )
    return [SentMail(date.fromisoformat(day), *row) for day, *row in connection.execute(statement, parameters)]


class AcceptedMail(NamedTuple):
    """Messages of one From address that one domain accepted within a span."""

    day: date
    sender: str
    domain: str
    provider: str | None
    messages: int


def accepted_mail(connection: sa.Connection, spans: Sequence[Span]) -> list[AcceptedMail]:
    """Count the messages that receivers accepted, of every sender in the ledger."""
    item, parameters = _spans(connection, spans)
    statement = sa.text(
        "SELECT span.day, sender.address, recipient.domain, mail_domain.provider, count(*) "
        f"FROM delivery_event AS e JOIN {item} ON e.at >= span.since AND e.at < span.until "
        "JOIN touch ON touch.id = e.touch_id "
        "JOIN campaign ON campaign.id = touch.campaign_id JOIN sender ON sender.id = campaign.sender_id "
        "JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        f"WHERE e.state = 'accepted' AND {IS_DELIVERY} "
        "GROUP BY span.day, sender.address, recipient.domain, mail_domain.provider"
    )
    return [AcceptedMail(date.fromisoformat(day), *row) for day, *row in connection.execute(statement, parameters)]


def complaints(connection: sa.Connection, senders: Sequence[str], spans: Sequence[Span]) -> list[Complaints]:
    """Count the recipients of these senders who complained."""
    item, parameters = _spans(connection, spans)
    statement = sa.text(
        "SELECT span.day, recipient.domain, mail_domain.provider, count(DISTINCT recipient.id) "
        f"FROM suppression JOIN {item} "
        "ON suppression.created_at >= span.since AND suppression.created_at < span.until "
        "JOIN recipient ON recipient.address = suppression.address "
        "JOIN touch ON touch.recipient_id = recipient.id AND touch.state = 'accepted' "
        f"JOIN campaign ON campaign.id = touch.campaign_id JOIN sender ON sender.id = {SENDER_OF_TOUCH} "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        "WHERE suppression.reason = 'complaint' AND sender.address IN :senders "
        "GROUP BY span.day, recipient.domain, mail_domain.provider"
    ).bindparams(sa.bindparam("senders", list(senders), type_=sa.Text(), expanding=True))
    return [Complaints(date.fromisoformat(day), *row) for day, *row in connection.execute(statement, parameters)]


class UnderWay(NamedTuple):
    """Number of touches of one sender to one domain that are in a queue, on the wire, or planned for a seed list or by
    overflow.
    """

    sender: str
    domain: str
    provider: str | None
    touches: int


def under_way(connection: sa.Connection, senders: Sequence[str]) -> list[UnderWay]:
    """Count the touches that these senders still have to send."""
    statement = sa.text(
        "SELECT sender.address, recipient.domain, mail_domain.provider, count(*) FROM campaign "
        f"JOIN touch ON touch.campaign_id = campaign.id JOIN sender ON sender.id = {SENDER_OF_TOUCH} "
        "JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        "WHERE campaign.state IN ('running', 'paused') AND sender.address IN :senders "
        "AND (touch.state IN ('queued', 'sending', 'deferred') "
        "OR (touch.state = 'planned' AND (campaign.warmup OR touch.sender_id IS NOT NULL))) "
        "GROUP BY sender.address, recipient.domain, mail_domain.provider"
    ).bindparams(sa.bindparam("senders", list(senders), type_=sa.Text(), expanding=True))
    return [UnderWay(*row) for row in connection.execute(statement)]


class Planned(NamedTuple):
    """Number of touches to one domain. ``provider``: from the last DNS lookup, if any."""

    domain: str
    provider: str | None
    touches: int


def planned_seeds(connection: sa.Connection, senders: Sequence[str], span: Span) -> list[Planned]:
    """Count the touches of these senders' seed lists of a day, including sent ones."""
    statement = sa.text(
        "SELECT recipient.domain, mail_domain.provider, count(*) FROM campaign "
        "JOIN touch ON touch.campaign_id = campaign.id JOIN sender ON sender.id = campaign.sender_id "
        "JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        "WHERE campaign.warmup AND campaign.created_at >= :since AND sender.address IN :senders "
        "AND touch.due_at >= :since AND touch.due_at < :until "
        "AND touch.state NOT IN ('suppressed', 'cancelled', 'skipped', 'expired') "
        "GROUP BY recipient.domain, mail_domain.provider"
    ).bindparams(
        sa.bindparam("senders", list(senders), type_=sa.Text(), expanding=True),
        sa.bindparam("since", type_=UtcDateTime()),
        sa.bindparam("until", type_=UtcDateTime()),
    )
    rows = connection.execute(statement, {"since": span.since, "until": span.until})
    return [Planned(*row) for row in rows]


def _spans(connection: sa.Connection, spans: Sequence[Span]) -> tuple[str, dict[str, str]]:
    dialect = connection.dialect.name
    columns: dict[str, sa.types.TypeEngine[Any]] = {"day": sa.Text(), "since": UtcDateTime(), "until": UtcDateTime()}
    rows = [
        {
            "day": span.day.isoformat(),
            "since": sql_time(span.since, dialect),
            "until": sql_time(span.until, dialect),
        }
        for span in spans
    ]
    return json_rows(connection, "span", columns, rows)
