"""Cohorts: the touches of one step, from one list source, to one mailbox provider; their results, and their pauses.

Every evaluation reads the ledger again. It keeps no running totals, so it counts no event twice and misses no late one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import NamedTuple

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from postroad.store.bulk import any_of, found_sql, id_rows
from postroad.store.types import BIG_ID, PartialIndex, StoredRow, StrEnumType, UtcDateTime

SOURCE_LENGTH = 300
LATE_EVENTS = 5_000
"""At most so many events with a smaller id than the last one read may be committed after it."""


class Cohort(NamedTuple):
    """The touches that are paused together. ``source``: the value of the source column, else the path of the file."""

    step_id: int
    source: str
    provider: str


class CohortEvidence(StrEnum):
    """The evidence against a cohort."""

    HARD_BOUNCES = "hard_bounces"
    COMPLAINTS = "complaints"


class CohortPause(StoredRow, table=True):
    """One pause of one cohort, with its cause and who lifted it. A cohort has at most one open pause."""

    __tablename__ = "cohort_pause"
    __table_args__ = (
        PartialIndex(
            "ux_cohort_pause_open",
            "step_id",
            "source",
            "provider",
            unique=True,
            where="lifted_at IS NULL",
        ),
        sa.Index("ix_cohort_pause_step", "step_id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    step_id: int = Field(foreign_key="step.id", sa_type=BIG_ID)
    source: str = Field(sa_type=sa.String(SOURCE_LENGTH))
    provider: str = Field(sa_type=sa.String(100))
    evidence: CohortEvidence = Field(sa_type=StrEnumType(CohortEvidence))
    reason: str = Field(sa_type=sa.String(500))
    at: datetime = Field(sa_type=UtcDateTime)
    announced_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    lifted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    lifted_by: str | None = Field(default=None, sa_type=sa.String(100))
    lifted_why: str | None = Field(default=None, sa_type=sa.String(500))

    @property
    def cohort(self) -> Cohort:
        return Cohort(self.step_id, self.source, self.provider)


class Tally(NamedTuple):
    """Touches of one step that were due on one day, to one domain. ``provider``: from the last DNS lookup, if any."""

    source: str
    domain: str
    provider: str | None
    day: date
    tried: int
    hard: int
    complained: int


# A deferred touch was tried and has not bounced so far. A touch that did not reach the mailbox, or that bounced through
# the sender's fault, is no evidence about the list.
_TRIED = (
    "touch.state IN ('deferred', 'accepted', 'unknown') OR (touch.state = 'bounced' AND NOT "
    + found_sql(
        "delivery_event WHERE delivery_event.touch_id = touch.id AND delivery_event.state = 'bounced' "
        "AND delivery_event.blame = 'sender'"
    )
    + ")"
)
_HARD = (
    "touch.state = 'bounced' AND ("
    + found_sql(
        "delivery_event WHERE delivery_event.touch_id = touch.id AND delivery_event.state = 'bounced' "
        "AND delivery_event.cause IN :hard_causes"
    )
    + " OR "
    + found_sql(
        "bounce_effect JOIN bounce_mail ON bounce_mail.digest = bounce_effect.digest "
        "WHERE bounce_effect.touch_id = touch.id AND bounce_effect.effect = 'touch_bounced' "
        "AND bounce_mail.verdict = 'hard'"
    )
    + ")"
)
# A complaint without a signed token is no evidence by default: anyone can write one.
_COMPLAINED = found_sql(
    "bounce_mail WHERE bounce_mail.touch_id = touch.id AND bounce_mail.verdict = 'complaint' "
    "AND (:act_on_unsigned OR bounce_mail.matched_by <> 'recipient-and-time')"
)
_JOINS = (
    "JOIN campaign ON campaign.id = touch.campaign_id JOIN recipient ON recipient.id = touch.recipient_id "
    "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
    "LEFT JOIN audience_member ON audience_member.audience_id = campaign.audience_id "
    "AND audience_member.recipient_id = touch.recipient_id "
    "LEFT JOIN audience_import ON audience_import.id = audience_member.import_id"
)


# With the campaign, so that the index of (campaign, step, recipient) is used: the step alone has no index.
_OF_STEP = (
    "touch.campaign_id = (SELECT step.campaign_id FROM step WHERE step.id = :step_id) AND touch.step_id = :step_id"
)


def _source(connection: sa.Connection) -> str:
    if connection.dialect.name == "sqlite":
        field = "CAST(json_extract(recipient.attributes, '$.\"' || :source_field || '\"') AS TEXT)"
    else:
        field = "(recipient.attributes ->> CAST(:source_field AS TEXT))"
    return f"substr(COALESCE(NULLIF({field}, ''), audience_import.path, ''), 1, {SOURCE_LENGTH})"


def tallies(
    connection: sa.Connection,
    step_id: int,
    *,
    source_field: str,
    hard_causes: Sequence[str],
    act_on_unsigned: bool,
    since: datetime | None = None,
) -> list[Tally]:
    """Count the results of the touches of a step by source, domain, provider and day.

    Args:
        connection: A connection in a transaction.
        step_id: The step.
        source_field: Merge field that names the list source of a recipient.
        hard_causes: Causes of bounces that mean "no such mailbox".
        act_on_unsigned: Count complaints that were matched by recipient and time only.
        since: Only touches without an event up to this time count. None: all touches.

    Returns:
        The counts. The day is the UTC day on which a touch was due, which never changes.
    """
    day = "substr(touch.due_at, 1, 10)"
    if connection.dialect.name != "sqlite":
        day = "to_char(touch.due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
    newer = "" if since is None else f"AND NOT {found_sql('delivery_event WHERE touch_id = touch.id AND at <= :since')}"
    statement = sa.text(
        f"SELECT {_source(connection)} AS source, recipient.domain, mail_domain.provider, {day} AS day, "
        f"sum(CASE WHEN {_TRIED} THEN 1 ELSE 0 END), sum(CASE WHEN {_HARD} THEN 1 ELSE 0 END), "
        f"sum(CASE WHEN {_COMPLAINED} THEN 1 ELSE 0 END) "
        f"FROM touch {_JOINS} WHERE {_OF_STEP} {newer} "
        "GROUP BY 1, recipient.domain, mail_domain.provider, 4"
    ).bindparams(sa.bindparam("hard_causes", list(hard_causes), type_=sa.Text(), expanding=True))
    values: dict[str, object] = {"step_id": step_id, "source_field": source_field, "act_on_unsigned": act_on_unsigned}
    if since is not None:
        statement = statement.bindparams(sa.bindparam("since", type_=UtcDateTime()))
        values["since"] = since
    rows = connection.execute(statement, values)
    return [Tally(row[0], row[1], row[2], date.fromisoformat(row[3]), *row[4:]) for row in rows]


class CohortKey(NamedTuple):
    """The values that determine the cohort of one touch."""

    touch_id: int
    step_id: int
    source: str
    domain: str
    provider: str | None


def cohort_keys(connection: sa.Connection, touch_ids: Sequence[int], *, source_field: str) -> list[CohortKey]:
    """Return the values that determine the cohorts of these touches."""
    item, parameters = id_rows(connection, touch_ids)
    statement = sa.text(
        f"SELECT touch.id, touch.step_id, {_source(connection)}, recipient.domain, mail_domain.provider "
        f"FROM touch {_JOINS} WHERE touch.id {any_of(connection, f'SELECT batch.id FROM {item}')}"
    )
    return [CohortKey(*row) for row in connection.execute(statement, {"source_field": source_field, **parameters})]


class NewEvidence(NamedTuple):
    """Steps with new evidence, and the id of the last event that was read."""

    steps: set[int]
    last_event: int


def steps_with_new_evidence(connection: sa.Connection, *, after_event: int | None, since: datetime) -> NewEvidence:
    """Return the active steps with bounces after an event, or complaints since a time. ``after_event`` None: all."""
    last = int(connection.execute(sa.text("SELECT COALESCE(max(id), 0) FROM delivery_event")).scalar_one())
    running = "JOIN campaign ON campaign.id = {}.campaign_id AND campaign.state IN ('running', 'paused')"
    if after_event is None:
        every = f"SELECT step.id FROM step {running.format('step')} WHERE step.kind = 'email'"
        return NewEvidence(set(connection.execute(sa.text(every)).scalars()), last)
    bounced = sa.text(
        f"SELECT DISTINCT touch.step_id FROM delivery_event JOIN touch ON touch.id = delivery_event.touch_id "
        f"{running.format('touch')} WHERE delivery_event.id > :after AND delivery_event.state = 'bounced'"
    )
    steps = set(connection.execute(bounced, {"after": after_event - LATE_EVENTS}).scalars())
    complained = sa.text(
        f"SELECT DISTINCT touch.step_id FROM bounce_mail JOIN touch ON touch.id = bounce_mail.touch_id "
        f"{running.format('touch')} WHERE bounce_mail.verdict = 'complaint' AND bounce_mail.processed_at > :since"
    ).bindparams(sa.bindparam("since", type_=UtcDateTime()))
    return NewEvidence(steps | set(connection.execute(complained, {"since": since}).scalars()), last)


def open_pauses(connection: sa.Connection) -> dict[Cohort, CohortEvidence]:
    """Return the paused cohorts, and the evidence against each."""
    rows = connection.execute(
        sa.text("SELECT step_id, source, provider, evidence FROM cohort_pause WHERE lifted_at IS NULL")
    )
    return {Cohort(*row[:3]): CohortEvidence(row[3]) for row in rows}


def last_lifted(connection: sa.Connection, step_id: int) -> dict[Cohort, datetime]:
    """Return when the last pause of each cohort of a step was lifted. Cohorts without one are missing."""
    statement = (
        sa.select(
            col(CohortPause.step_id),
            col(CohortPause.source),
            col(CohortPause.provider),
            sa.func.max(col(CohortPause.lifted_at), type_=UtcDateTime()),
        )
        .where(col(CohortPause.step_id) == step_id, col(CohortPause.lifted_at).is_not(None))
        .group_by(col(CohortPause.step_id), col(CohortPause.source), col(CohortPause.provider))
    )
    return {Cohort(*row[:3]): row[3] for row in connection.execute(statement)}


def add_pause(connection: sa.Connection, pause: CohortPause) -> bool:
    """Pause a cohort. Returns False, and changes nothing, if it is paused."""
    statement = sa.text(
        "INSERT INTO cohort_pause (step_id, source, provider, evidence, reason, at) "
        "VALUES (:step_id, :source, :provider, :evidence, :reason, :at) "
        "ON CONFLICT (step_id, source, provider) WHERE lifted_at IS NULL DO NOTHING"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    values = pause.model_dump(include={"step_id", "source", "provider", "at"})
    values |= {"evidence": pause.evidence.value, "reason": pause.reason[:500]}
    return connection.execute(statement, values).rowcount == 1


def lift_pause(connection: sa.Connection, id_: int, *, by: str, why: str, now: datetime) -> CohortPause | None:
    """Lift an open pause, and record who did it and why. Returns None if no such pause is open."""
    statement = (
        sa.update(CohortPause)
        .where(col(CohortPause.id) == id_, col(CohortPause.lifted_at).is_(None))
        .values(lifted_at=now, lifted_by=by[:100], lifted_why=why[:500])
    )
    if connection.execute(statement).rowcount == 0:
        return None
    session = Session(connection)
    pause = session.get_one(CohortPause, id_)
    session.expunge_all()
    return pause


class NamedPause(NamedTuple):
    """A pause, and the names of its campaign and step."""

    campaign: str
    step: str
    pause: CohortPause


def pauses(connection: sa.Connection, *, lifted: bool = False, unannounced: bool = False) -> list[NamedPause]:
    """Return open pauses, the newest first. ``lifted``: also lifted ones. ``unannounced``: only unannounced ones."""
    statement = (
        "SELECT cohort_pause.id, campaign.name, step.name FROM cohort_pause "
        "JOIN step ON step.id = cohort_pause.step_id JOIN campaign ON campaign.id = step.campaign_id"
    )
    names = {row[0]: (row[1], row[2]) for row in connection.execute(sa.text(statement))}
    wanted = select(CohortPause).order_by(col(CohortPause.id).desc())
    if not lifted:
        wanted = wanted.where(col(CohortPause.lifted_at).is_(None))
    if unannounced:
        wanted = wanted.where(col(CohortPause.announced_at).is_(None))
    session = Session(connection)
    found = list(session.exec(wanted))
    session.expunge_all()
    return [NamedPause(*names[pause.id], pause) for pause in found if pause.id is not None]


def pauses_of_steps(connection: sa.Connection, step_ids: Sequence[int]) -> list[CohortPause]:
    """Return the open pauses of cohorts of these steps, the oldest first."""
    wanted = (
        select(CohortPause)
        .where(col(CohortPause.step_id).in_(step_ids), col(CohortPause.lifted_at).is_(None))
        .order_by(col(CohortPause.id))
    )
    session = Session(connection)
    found = list(session.exec(wanted))
    session.expunge_all()
    return found


def mark_announced(connection: sa.Connection, ids: Sequence[int], now: datetime) -> None:
    """Record that these pauses were announced."""
    connection.execute(sa.update(CohortPause).where(col(CohortPause.id).in_(ids)).values(announced_at=now))


def due_queued(connection: sa.Connection, step_id: int, now: datetime, chunk: int) -> Iterator[list[int]]:
    """Yield the queued touches of a step whose time has come, a chunk at a time."""
    statement = sa.text(
        f"SELECT id, recipient_id, request_id FROM touch WHERE {_OF_STEP} AND state = 'queued' AND due_at <= :now "
        "AND (next_at IS NULL OR next_at <= :now) AND (recipient_id, request_id) > (:after, :after_request) "
        "ORDER BY recipient_id, request_id LIMIT :chunk"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    after = after_request = 0
    while True:
        values = {"step_id": step_id, "now": now, "after": after, "after_request": after_request, "chunk": chunk}
        found = connection.execute(statement, values).all()
        if not found:
            return
        yield [row.id for row in found]
        after, after_request = found[-1].recipient_id, found[-1].request_id
