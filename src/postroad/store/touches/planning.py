"""Inserts touches, and marks those whose end has had its consequence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from postroad.store.bulk import any_of, json_rows, locked_touches
from postroad.store.ledger import TouchState, request_of_entry
from postroad.store.suppression import suppressed_sql
from postroad.store.touches.transitions import Condition, TouchEvent, allowed_sql
from postroad.store.types import UtcDateTime, sql_time
from postroad.store.variant import VariantTest, find_variant_test, save_variant_test
from postroad.store.variant_split import VariantSplit


class PlannedStep(NamedTuple):
    """The step that touches are planned for.

    ``follow_up``: its acceptance has a consequence, such as another email. ``enrolled``: so has its failure.
    ``variants``: the contents that it has; None: one. ``share``: the share of a rollout with which its touches are
    released; None: they are not withheld.
    """

    campaign_id: int
    step_id: int
    follow_up: bool
    enrolled: bool = False
    variants: VariantSplit | None = None
    share: int | None = None


class NewTouch(NamedTuple):
    """A touch to plan. ``hashed``: hash of the address, by which a suppression may be stored.

    ``entry``: number of the recipient's entry into the journey.
    """

    recipient_id: int
    due_at: datetime
    hashed: str | None
    entry: int = 1


class SeedTouch(NamedTuple):
    """A touch of a seed list to plan."""

    recipient_id: int
    due_at: datetime


def plan_touches(connection: sa.Connection, step: PlannedStep, touches: Sequence[NewTouch], now: datetime) -> int:
    """Insert touches of a step. Those of suppressed recipients are inserted as ``suppressed``.

    All others of a recalled step are inserted as ``cancelled``. In a step with variants each touch gets one. Before the
    winner is decided, only the recipients of the test do, and the others are inserted as ``awaiting``. The caller holds
    the lock of the campaign.

    Returns:
        The number of touches that did not exist.
    """
    if step.variants is None:
        return len(_insert(connection, step, [(touch, None) for touch in touches], now))
    if step.variants.winner is not None:
        test = find_variant_test(connection, step.step_id)
        if test is None or test.decided_at is None:
            return _plan_undecided(connection, step, step.variants, test, touches, now)
        if test.winner is not None:
            return len(_insert(connection, step, [(touch, test.winner) for touch in touches], now))
    drawn = [(touch, step.variants.draw(touch.recipient_id)) for touch in touches]
    return len(_insert(connection, step, drawn, now))


def _plan_undecided(
    connection: sa.Connection,
    step: PlannedStep,
    split: VariantSplit,
    test: VariantTest | None,
    touches: Sequence[NewTouch],
    now: datetime,
) -> int:
    """Insert touches as ``awaiting``, and give those of the test their variants."""
    if not touches or split.winner is None:
        return 0
    inserted = _insert(connection, step, [(touch, None) for touch in touches], now, TouchState.AWAITING)
    awaiting = {row.recipient_id: row.id for row in inserted if row.state == TouchState.AWAITING}
    known = test or VariantTest(
        step_id=step.step_id,
        campaign_id=step.campaign_id,
        begun_at=min(touch.due_at for touch in touches),
        decide_at=now,
    )
    testers = split.choose_testers(list(awaiting), planned=known.planned, tested=known.tested)
    due = {touch.recipient_id: touch.due_at for touch in touches}
    give_variants(connection, [GivenVariant(awaiting[id_], split.draw(id_)) for id_ in testers])
    known.planned += len(awaiting)
    known.tested += len(testers)
    if testers:  # Until someone tests, the test has not begun.
        first = min(due[id_] for id_ in testers)
        known.begun_at = min(known.begun_at, first) if known.tested > len(testers) else first
    known.decide_at = known.begun_at + split.winner.after
    save_variant_test(connection, known)
    return len(inserted)


class GivenVariant(NamedTuple):
    """The variant of an awaiting touch. ``leaves_at``: when it may leave, after it waited; None: when it is due."""

    touch_id: int
    variant: str
    leaves_at: datetime | None = None


def give_variants(connection: sa.Connection, given: Sequence[GivenVariant]) -> set[int]:
    """Move awaiting touches to ``planned``, with their variants.

    Args:
        connection: A connection in a transaction that writes.
        given: The touches and their variants. One that does not wait for a variant is not changed.

    Returns:
        The touches that moved.
    """
    dialect = connection.dialect.name
    rows = [
        {
            "id": one.touch_id,
            "variant": one.variant,
            "leaves_at": sql_time(one.leaves_at, dialect) if one.leaves_at is not None else None,
        }
        for one in sorted(given)
    ]
    columns: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "variant": sa.Text(), "leaves_at": UtcDateTime()}
    item, parameters = json_rows(connection, "given", columns, rows)
    update = (
        f"UPDATE touch SET state = '{TouchState.PLANNED}', variant = given.variant, waited_until = given.leaves_at "
    )
    allowed = allowed_sql(TouchEvent.DECIDED, TouchState.PLANNED)
    statement = f"{update} FROM {item} WHERE touch.id = given.id AND {allowed} RETURNING touch.id"
    if dialect == "postgresql":  # A condition on the table would make it read the whole index of awaiting touches.
        fence, ids = locked_touches(connection, [one.touch_id for one in given], "state")
        allowed = allowed_sql(TouchEvent.DECIDED, TouchState.PLANNED, state="mine.state")
        statement = (
            f"{fence} {update} FROM mine JOIN {item} ON given.id = mine.id WHERE touch.id = mine.id AND {allowed} "
            "RETURNING touch.id"
        )
        parameters = {**parameters, **ids}
    return set(connection.execute(sa.text(statement), parameters).scalars())


def _insert(
    connection: sa.Connection,
    step: PlannedStep,
    touches: Sequence[tuple[NewTouch, str | None]],
    now: datetime,
    state: TouchState = TouchState.PLANNED,
) -> Sequence[sa.Row[Any]]:
    """Insert touches with their variants. Return the id, recipient and state of those that did not exist."""
    item, parameters = _new_rows(connection, touches)
    recipients = (
        f"SELECT id, address, domain FROM recipient WHERE id {any_of(connection, f'SELECT new.id FROM {item}')}"
    )
    if step.share is not None:
        state = TouchState.WITHHELD
    # MATERIALIZED: one lookup of the suppression for each recipient. CROSS JOIN: SQLite keeps this order, and reads the
    # parameter once instead of once for each recipient.
    insert = sa.text(
        "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim, settled_at, follow_up, "
        "enrolled, request_id, variant, share) WITH found AS MATERIALIZED "
        f"(SELECT new.id, new.due_at, new.request, new.variant, {suppressed_sql('new.hashed')} AS suppressed, "
        "(SELECT recalled_at IS NOT NULL FROM step WHERE step.id = :step_id) AS recalled "
        f"FROM campaign CROSS JOIN {item} CROSS JOIN ({recipients}) AS recipient "
        "WHERE campaign.id = :campaign_id AND recipient.id = new.id) "
        f"SELECT :campaign_id, :step_id, found.id, CASE WHEN found.suppressed THEN '{TouchState.SUPPRESSED}' "
        f"WHEN found.recalled THEN '{TouchState.CANCELLED}' ELSE '{state}' END, "
        "found.due_at, 0, CASE WHEN found.suppressed OR found.recalled THEN :now END, :follow_up, :enrolled, "
        "found.request, found.variant, CAST(:share AS SMALLINT) FROM found WHERE true ORDER BY found.id "
        "ON CONFLICT (campaign_id, step_id, recipient_id, request_id) DO NOTHING RETURNING id, recipient_id, state"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    values = {name: value for name, value in step._asdict().items() if name != "variants"}
    return connection.execute(insert, {**values, "now": now, **parameters}).all()


def _new_rows(connection: sa.Connection, touches: Sequence[tuple[NewTouch, str | None]]) -> tuple[str, dict[str, str]]:
    """Return a FROM item ``new`` with touches and their variants, and its parameter."""
    dialect = connection.dialect.name
    columns: dict[str, TypeEngine[Any]] = {
        "id": sa.BigInteger(),
        "due_at": UtcDateTime(),
        "hashed": sa.Text(),
        "request": sa.BigInteger(),
        "variant": sa.Text(),
    }
    rows = [
        {
            "id": touch.recipient_id,
            "due_at": sql_time(touch.due_at, dialect),
            "hashed": touch.hashed,
            "request": request_of_entry(touch.entry),
            "variant": variant,
        }
        for touch, variant in touches
    ]
    return json_rows(connection, "new", columns, rows)


def plan_seed_touches(connection: sa.Connection, campaign_id: int, step_id: int, touches: Sequence[SeedTouch]) -> None:
    """Insert the touches of a seed list, where they do not exist."""
    dialect = connection.dialect.name
    rows = [{"id": touch.recipient_id, "due_at": sql_time(touch.due_at, dialect)} for touch in touches]
    columns: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "due_at": UtcDateTime()}
    item, parameters = json_rows(connection, "due", columns, rows)
    insert = sa.text(
        "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim) "
        f"SELECT :campaign_id, :step_id, due.id, '{TouchState.PLANNED}', due.due_at, 0 FROM {item} WHERE true "
        "ON CONFLICT (campaign_id, step_id, recipient_id, request_id) DO NOTHING"
    )
    connection.execute(insert, {"campaign_id": campaign_id, "step_id": step_id, **parameters})


def mark_followed_up(connection: sa.Connection, touch_ids: Sequence[int]) -> set[int]:
    """Record that the steps after these touches are taken. Returns the touches that this call marked."""
    fence, parameters = locked_touches(connection, touch_ids, "state, follow_up")
    allowed = allowed_sql(
        TouchEvent.FOLLOWED_UP, state="mine.state", conditions={Condition.FOLLOW_UP: "mine.follow_up"}
    )
    statement = sa.text(
        f"{fence} UPDATE touch SET follow_up = false, enrolled = false FROM mine "
        f"WHERE touch.id = mine.id AND {allowed} RETURNING touch.id"
    )
    return set(connection.execute(statement, parameters).scalars())


def extend_touches(connection: sa.Connection, touch_ids: Sequence[int], since: datetime) -> int:
    """Record that a step follows touches of an email that was the last one. Idempotent.

    Args:
        connection: A connection in a transaction that writes.
        touch_ids: The touches. One that was accepted or skipped before has no follow-up.
        since: When the step was added.

    Returns:
        The number of touches that have a follow-up now.
    """
    fence, parameters = locked_touches(connection, touch_ids, "state, settled_at")
    later = {Condition.ENDED_LATER: "mine.settled_at >= :since"}
    allowed = allowed_sql(TouchEvent.EXTENDED, state="mine.state", conditions=later)
    statement = sa.text(
        f"{fence} UPDATE touch SET follow_up = true FROM mine WHERE touch.id = mine.id AND {allowed} RETURNING touch.id"
    ).bindparams(sa.bindparam("since", type_=UtcDateTime()))
    return len(connection.execute(statement, {"since": since, **parameters}).all())


def mark_left(connection: sa.Connection, touch_ids: Sequence[int]) -> set[int]:
    """Record that the enrolments of failed touches exited: what is accepted later still has its follow-up.

    Args:
        connection: A connection in a transaction that writes.
        touch_ids: The touches.

    Returns:
        The touches that this call marked.
    """
    fence, parameters = locked_touches(connection, touch_ids, "state, enrolled")
    allowed = allowed_sql(TouchEvent.LEFT, state="mine.state", conditions={Condition.ENROLLED: "mine.enrolled"})
    statement = sa.text(
        f"{fence} UPDATE touch SET enrolled = false FROM mine WHERE touch.id = mine.id AND {allowed} RETURNING touch.id"
    )
    return set(connection.execute(statement, parameters).scalars())
