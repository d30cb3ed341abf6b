"""Returned mail and its effects. The content of a mail is stored for a while, its effects for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.bulk import any_of, found_sql, id_rows, json_rows
from postroad.store.campaign import OnReply
from postroad.store.ledger import SENDER_OF_TOUCH, TouchState
from postroad.store.outcome import OUTCOME_COLUMNS, OUTCOME_TABLES, OUTCOME_VALUES
from postroad.store.types import BIG_ID, PartialIndex, StoredRow, StrEnumType, UtcDateTime


class BounceMail(StoredRow, table=True):
    """One returned mail, identified by the digest of its bytes and its recipient address."""

    __tablename__ = "bounce_mail"
    __table_args__ = (
        PartialIndex(
            "ix_bounce_mail_waiting",
            "received_at",
            where="processed_at IS NULL",
        ),
        sa.Index("ix_bounce_mail_received", "received_at"),
        sa.Index("ix_bounce_mail_verdict", "verdict", "received_at"),
        sa.Index("ix_bounce_mail_counts", "received_at", "verdict", "rule"),
        sa.Index("ix_bounce_mail_rule", "verdict", "rule", "received_at", "digest"),
        PartialIndex(
            "ix_bounce_mail_raw",
            "received_at",
            where="raw IS NOT NULL",
        ),
    )

    digest: str = Field(primary_key=True, sa_type=sa.String(64))
    received_at: datetime = Field(sa_type=UtcDateTime)
    source: str = Field(sa_type=sa.String(24), description="source: smtp, maildir, imap, a file, …")
    mail_from: str | None = Field(
        default=None, sa_type=sa.String(320), description="envelope sender; empty: the null sender"
    )
    recipient: str | None = Field(default=None, sa_type=sa.String(320), description="envelope recipient")
    raw: bytes | None = Field(default=None, sa_type=sa.LargeBinary, description="NULL after its retention")
    processed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    kind: str | None = Field(default=None, sa_type=sa.String(24))
    verdict: str | None = Field(default=None, sa_type=sa.String(24))
    rule: str | None = Field(default=None, sa_type=sa.String(100))
    matched_by: str | None = Field(default=None, sa_type=sa.String(24), description="NULL: no touch was found")
    touch_id: int | None = Field(default=None, sa_type=BIG_ID, foreign_key="touch.id", index=True)
    campaign_id: int | None = Field(default=None, sa_type=sa.BigInteger, description="of its touch, as the next two")
    sender_id: int | None = Field(default=None, sa_type=sa.BigInteger)
    provider: str | None = Field(
        default=None, sa_type=sa.String(100), description="mailbox provider when the mail was processed"
    )


class PastBounceMail(StoredRow, table=True):
    """A mail whose row was deleted for its age. Its digest prevents a second classification."""

    __tablename__ = "past_bounce_mail"

    digest: str = Field(primary_key=True, sa_type=sa.String(64))


class BounceEffectKind(StrEnum):
    """What a returned mail changed."""

    TOUCH_BOUNCED = "touch_bounced"
    TOUCH_ACCEPTED = "touch_accepted"  # it was unknown, and the returned mail proves that a server took it
    ADDRESS_SUPPRESSED = "address_suppressed"
    TOUCH_SUPPRESSED = "touch_suppressed"  # another touch, which waited for the same address
    REPLIED = "replied"
    TOUCH_CANCELLED = "touch_cancelled"  # a later touch of the same campaign


class BounceEffect(StoredRow, table=True):
    """One change that one mail caused."""

    __tablename__ = "bounce_effect"
    __table_args__ = (sa.UniqueConstraint("digest", "effect", "touch_id"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    digest: str = Field(sa_type=sa.String(64), foreign_key="bounce_mail.digest")
    effect: BounceEffectKind = Field(sa_type=StrEnumType(BounceEffectKind))
    touch_id: int = Field(sa_type=BIG_ID, foreign_key="touch.id", index=True)
    detail: str = Field(sa_type=sa.String(200))
    at: datetime = Field(sa_type=UtcDateTime)


@dataclass(frozen=True, kw_only=True)
class MatchedTouch:
    """A touch that a returned mail is about. ``receiver``: mailbox provider, else site, else domain."""

    id: int
    state: TouchState
    campaign_id: int
    recipient_id: int
    address: str
    on_reply: OnReply
    receiver: str = ""


_TIMES = {name: sa.bindparam(name, type_=UtcDateTime()) for name in ("now", "since", "until", "before")}


def _text(statement: str, *times: str) -> sa.TextClause:
    return sa.text(statement).bindparams(*(_TIMES[name] for name in times))


def save_mail(connection: sa.Connection, mail: BounceMail) -> bool:
    """Save a mail. Returns False, and changes nothing, if it is stored or was processed and deleted."""
    if is_past(connection, mail.digest):
        return False
    statement = _text(
        "INSERT INTO bounce_mail (digest, received_at, source, mail_from, recipient, raw) "
        "VALUES (:digest, :now, :source, :mail_from, :recipient, :raw) ON CONFLICT (digest) DO NOTHING",
        "now",
    )
    values = mail.model_dump(include={"digest", "source", "mail_from", "recipient", "raw"})
    return connection.execute(statement, {**values, "now": mail.received_at}).rowcount == 1


def mail_of(connection: sa.Connection, digest: str, *, lock: bool = False) -> BounceMail | None:
    """Return the mail of a digest without its bytes, or None. ``lock``: lock it until the transaction ends."""
    columns = [column for column in BounceMail.__table__.columns if column.name != "raw"]  # type: ignore[attr-defined]
    statement = sa.select(*columns).where(sa.column("digest") == digest)
    row = connection.execute(statement.with_for_update() if lock else statement).mappings().one_or_none()
    return None if row is None else BounceMail(**row)


def waiting_mails(connection: sa.Connection, limit: int) -> list[tuple[str, bool]]:
    """Return digests of unprocessed mails, and whether only their reports remain: those last, the oldest first."""
    statement = sa.text(
        "SELECT digest, kind IS NOT NULL AS reports FROM bounce_mail WHERE processed_at IS NULL "
        "ORDER BY reports, received_at, digest LIMIT :limit"
    )
    return [(row.digest, bool(row.reports)) for row in connection.execute(statement, {"limit": limit})]


def finish_reports(connection: sa.Connection, digest: str, now: datetime) -> None:
    """Record that the reports of a mail were read, and delete its bytes, which may be many."""
    statement = _text("UPDATE bounce_mail SET processed_at = :now, raw = NULL WHERE digest = :digest", "now")
    connection.execute(statement, {"digest": digest, "now": now})


def is_past(connection: sa.Connection, digest: str) -> bool:
    """Whether a mail was processed, and its row deleted for its age."""
    statement = sa.text("SELECT 1 FROM past_bounce_mail WHERE digest = :digest")
    return connection.execute(statement, {"digest": digest}).scalar() is not None


def is_processed(connection: sa.Connection, digest: str) -> bool:
    """Whether a mail was processed."""
    statement = sa.text("SELECT 1 FROM bounce_mail WHERE digest = :digest AND processed_at IS NOT NULL")
    return connection.execute(statement, {"digest": digest}).scalar() is not None or is_past(connection, digest)


def raw_of(connection: sa.Connection, digest: str) -> bytes | None:
    """Return the bytes of a mail; None if there is no such mail, or its retention is over."""
    statement = sa.text("SELECT raw FROM bounce_mail WHERE digest = :digest")
    raw = connection.execute(statement, {"digest": digest}).scalar()
    return None if raw is None else bytes(raw)


def head_of(connection: sa.Connection, digest: str, limit: int) -> tuple[bytes, int] | None:
    """Return the first bytes of a mail and its size; None if there is no such mail, or its retention is over."""
    statement = sa.text(
        "SELECT substr(raw, 1, :limit) AS head, length(raw) AS octets FROM bounce_mail "
        "WHERE digest = :digest AND raw IS NOT NULL"
    )
    row = connection.execute(statement, {"digest": digest, "limit": limit}).one_or_none()
    return None if row is None else (bytes(row.head), int(row.octets))


def mails_to_empty(connection: sa.Connection, before: datetime, limit: int) -> list[str]:
    """Return the digests of processed mails received before a time that have their bytes, the oldest first."""
    statement = _text(
        "SELECT digest FROM bounce_mail WHERE raw IS NOT NULL AND received_at < :before "
        "AND processed_at IS NOT NULL ORDER BY received_at LIMIT :limit",
        "before",
    )
    return list(connection.execute(statement, {"before": before, "limit": limit}).scalars())


def forget_raw(connection: sa.Connection, digests: Sequence[str]) -> int:
    """Delete the bytes of mails and keep their rows. Returns the number of mails."""
    item, parameters = json_rows(connection, "old", {"digest": sa.Text()}, [{"digest": digest} for digest in digests])
    old = any_of(connection, f"SELECT old.digest FROM {item}")
    statement = sa.text(f"UPDATE bounce_mail SET raw = NULL WHERE digest {old}")
    return connection.execute(statement, parameters).rowcount


def finish_mail(connection: sa.Connection, mail: BounceMail) -> None:
    """Record how a mail was classified."""
    statement = _text(
        "UPDATE bounce_mail SET processed_at = :now, kind = :kind, verdict = :verdict, rule = :rule, "
        f"matched_by = :matched_by, touch_id = :touch_id, ({OUTCOME_COLUMNS}) = (SELECT {OUTCOME_VALUES} "
        f"FROM {OUTCOME_TABLES} AND touch.id = :touch_id) WHERE digest = :digest",
        "now",
    )
    values = mail.model_dump(include={"digest", "kind", "verdict", "rule", "matched_by", "touch_id"})
    connection.execute(statement, {**values, "now": mail.processed_at})


def lock_touch(connection: sa.Connection, touch_id: int) -> MatchedTouch | None:
    """Lock a touch until the transaction ends, and return it. None: the ledger does not have it."""
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE OF touch"
    statement = sa.text(
        "SELECT touch.id, touch.state, touch.campaign_id, touch.recipient_id, recipient.address, campaign.on_reply, "
        "COALESCE(NULLIF(mail_domain.provider, 'other'), mail_domain.site, recipient.domain) AS receiver "
        "FROM touch JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        f"JOIN campaign ON campaign.id = touch.campaign_id WHERE touch.id = :id{lock}"
    )
    row = connection.execute(statement, {"id": touch_id}).one_or_none()
    if row is None:
        return None
    return MatchedTouch(
        **{**row._mapping, "state": TouchState(row.state), "on_reply": OnReply(row.on_reply)},
    )


def touches_sent_to(
    connection: sa.Connection, addresses: Sequence[str], *, since: datetime, until: datetime, limit: int
) -> list[int]:
    """Return the touches that were sent to these addresses and ended within a period, the newest first."""
    item, parameters = json_rows(connection, "asked", {"address": sa.String()}, [{"address": a} for a in addresses])
    statement = _text(
        f"SELECT touch.id FROM {item} JOIN recipient ON recipient.address = asked.address "
        "JOIN touch ON touch.recipient_id = recipient.id WHERE touch.state IN ('accepted', 'unknown', 'bounced') "
        "AND touch.settled_at > :since AND touch.settled_at <= :until ORDER BY touch.settled_at DESC LIMIT :limit",
        "since",
        "until",
    )
    values = {"since": since, "until": until, "limit": limit, **parameters}
    return list(connection.execute(statement, values).scalars())


# Only bounces with a known cause in the mailbox count. Any other may be the fault of the sender or of a host.
_BOUNCED_IN_A_ROW = (
    "touch.state = 'bounced' AND touch.settled_at > :since "
    "AND touch.settled_at > COALESCE((SELECT max(other.settled_at) FROM touch AS other "
    "WHERE other.recipient_id = touch.recipient_id AND other.id <> :but_id AND other.state = 'accepted'), :since) "
    "AND "
    + found_sql(
        "delivery_event WHERE delivery_event.touch_id = touch.id "
        "AND delivery_event.state = 'bounced' AND delivery_event.blame = 'recipient'"
    )
)


def soft_bounces_in_a_row(connection: sa.Connection, touch: MatchedTouch, since: datetime) -> int:
    """Count other touches of the recipient that bounced since a time, without an acceptance after the first of them."""
    statement = _text(
        "SELECT count(*) FROM touch WHERE touch.recipient_id = :recipient_id AND touch.id <> :but_id "
        f"AND {_BOUNCED_IN_A_ROW}",
        "since",
    )
    values = {"recipient_id": touch.recipient_id, "but_id": touch.id, "since": since}
    return int(connection.execute(statement, values).scalar_one())


def over_soft_limit(connection: sa.Connection, touch_ids: Sequence[int], *, since: datetime, limit: int) -> list[str]:
    """Return the addresses of these touches that bounced ``limit`` times in a row since a time, these included."""
    item, parameters = id_rows(connection, touch_ids)
    statement = _text(
        "SELECT recipient.address FROM touch JOIN recipient ON recipient.id = touch.recipient_id "
        f"WHERE touch.recipient_id IN (SELECT mine.recipient_id FROM {item} JOIN touch AS mine ON mine.id = batch.id) "
        f"AND {_BOUNCED_IN_A_ROW} GROUP BY recipient.address HAVING count(*) >= :limit",
        "since",
    )
    values = {"since": since, "but_id": 0, "limit": limit, **parameters}
    return list(connection.execute(statement, values).scalars())


def add_effects(
    connection: sa.Connection, digest: str, effects: Sequence[tuple[BounceEffectKind, int, str]], now: datetime
) -> None:
    """Record what a mail changed: the kind of the effect, the touch, and a detail as text."""
    statement = _text(
        "INSERT INTO bounce_effect (digest, effect, touch_id, detail, at) "
        "VALUES (:digest, :effect, :touch_id, :detail, :now) ON CONFLICT (digest, effect, touch_id) DO NOTHING",
        "now",
    )
    for effect, touch_id, detail in effects:
        values = {"digest": digest, "effect": effect.value, "touch_id": touch_id, "detail": detail[:200], "now": now}
        connection.execute(statement, values)


def effects_of(connection: sa.Connection, digest: str) -> list[tuple[BounceEffectKind, int, str]]:
    """Return what a mail changed, in order."""
    statement = sa.text("SELECT effect, touch_id, detail FROM bounce_effect WHERE digest = :digest ORDER BY id")
    return [(BounceEffectKind(row[0]), row[1], row[2]) for row in connection.execute(statement, {"digest": digest})]


@dataclass(frozen=True, kw_only=True)
class VerdictCount:
    """Number of mails with one verdict. ``sender`` and ``domain``: None without a touch."""

    verdict: str
    sender: str | None
    domain: str | None
    count: int


def verdict_counts(connection: sa.Connection, since: datetime) -> list[VerdictCount]:
    """Count touches by verdict, sender and recipient domain of the mails that were returned since a time.

    Args:
        connection: A connection in a transaction.
        since: Only mails received after this time count.

    Returns:
        The counts. A touch with several mails counts once for each verdict. A mail without a touch counts as one.
    """
    statement = _text(
        "SELECT bounce_mail.verdict, sender.address AS sender, recipient.domain, "
        "count(DISTINCT COALESCE(CAST(bounce_mail.touch_id AS VARCHAR(20)), bounce_mail.digest)) AS n FROM bounce_mail "
        "LEFT JOIN touch ON touch.id = bounce_mail.touch_id LEFT JOIN campaign ON campaign.id = touch.campaign_id "
        f"LEFT JOIN sender ON sender.id = {SENDER_OF_TOUCH} LEFT JOIN recipient ON recipient.id = touch.recipient_id "
        "WHERE bounce_mail.processed_at IS NOT NULL AND bounce_mail.received_at > :since "
        "GROUP BY bounce_mail.verdict, sender.address, recipient.domain "
        "ORDER BY bounce_mail.verdict, sender.address, recipient.domain",
        "since",
    )
    rows = connection.execute(statement, {"since": since})
    return [VerdictCount(verdict=row[0], sender=row[1], domain=row[2], count=row[3]) for row in rows]
