"""Reads the touches and enrolments of a step in one state, a page at a time, in the order of an index."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from postroad.store.bulk import id_rows
from postroad.store.enrolment import EnrolmentState, ExitReason
from postroad.store.keyset import keyset_sql
from postroad.store.ledger import TouchState
from postroad.store.types import UtcDateTime
from postroad.store.variant import VariantOutcome


def touch_ids_in_state(
    connection: sa.Connection, step_id: int, state: TouchState, *, after: int, limit: int
) -> list[int]:
    """Return ids of the touches of a step in a state that are greater than ``after``, in order."""
    where, order_by = keyset_sql(connection, equal=("step_id", "state"), key=("id",))
    # Without the condition on the claim, which always holds, no database uses the index.
    statement = sa.text(f"SELECT id FROM touch WHERE claim >= 0 AND {where} ORDER BY {order_by} LIMIT :limit")
    values = {"step_id": step_id, "state": state.value, "after_id": after, "limit": limit}
    return list(connection.execute(statement, values).scalars())


def touch_variants_in_state(
    connection: sa.Connection, step_id: int, state: TouchState, *, after: int, limit: int
) -> list[tuple[int, str | None]]:
    """Return ids and variants of the touches of a step in a state whose ids are greater than ``after``, in order."""
    where, order_by = keyset_sql(connection, equal=("step_id", "state"), key=("id",))
    statement = sa.text(f"SELECT id, variant FROM touch WHERE claim >= 0 AND {where} ORDER BY {order_by} LIMIT :limit")
    values = {"step_id": step_id, "state": state.value, "after_id": after, "limit": limit}
    return [(row.id, row.variant) for row in connection.execute(statement, values)]


def touch_ids_with_outcome(
    connection: sa.Connection, step_id: int, variant: str, outcome: VariantOutcome, *, after: int, limit: int
) -> list[int]:
    """Return ids of the touches of a variant with an outcome that are greater than ``after``, in order."""
    where, order_by = keyset_sql(connection, equal=("step_id", "variant", "outcome"), key=("touch_id",))
    statement = sa.text(f"SELECT touch_id FROM variant_outcome WHERE {where} ORDER BY {order_by} LIMIT :limit")
    values = {"step_id": step_id, "variant": variant, "outcome": outcome.value, "after_touch_id": after, "limit": limit}
    return list(connection.execute(statement, values).scalars())


def enrolment_ids_in_state(
    connection: sa.Connection, step_id: int, state: EnrolmentState, why: ExitReason | None, *, after: int, limit: int
) -> list[int]:
    """Return ids of the enrolments of a step in a state that are greater than ``after``, in order.

    ``why``: why they exited; None: of enrolments that did not exit.
    """
    where, order_by = keyset_sql(connection, equal=("step_id", "state", "why"), key=("id",))
    if why is None:
        where, order_by = "step_id = :step_id AND state = :state AND why IS NULL AND id > :after_id", "why, id"
    # Without the condition on the recipient, which always holds, no database uses the index.
    statement = sa.text(f"SELECT id FROM enrolment WHERE recipient_id > 0 AND {where} ORDER BY {order_by} LIMIT :limit")
    values: dict[str, object] = {"step_id": step_id, "state": state.value, "after_id": after, "limit": limit}
    return list(connection.execute(statement, values if why is None else {**values, "why": why.value}).scalars())


class EnrolmentRow(NamedTuple):
    """One recipient's way through a journey. ``step``: where it is or ended. ``since``: the time of that."""

    id: int
    recipient_id: int
    address: str
    step: str
    state: EnrolmentState
    entered_at: datetime
    since: datetime
    due_at: datetime | None
    why: ExitReason | None
    goal_at: datetime | None


def enrolments_by_ids(connection: sa.Connection, ids: Sequence[int]) -> list[EnrolmentRow]:
    """Return these enrolments, in the order of their ids."""
    if not ids:
        return []
    item, parameters = id_rows(connection, ids)
    statement = sa.text(
        "SELECT enrolment.id, enrolment.recipient_id, recipient.address, step.name AS step, enrolment.state, "
        "enrolment.entered_at, enrolment.since, enrolment.due_at, enrolment.why, enrolment.goal_at "
        f"FROM {item} CROSS JOIN enrolment JOIN step ON step.id = enrolment.step_id "
        "JOIN recipient ON recipient.id = enrolment.recipient_id WHERE enrolment.id = batch.id ORDER BY enrolment.id"
    ).columns(
        sa.column("id", sa.Integer()),
        sa.column("recipient_id", sa.Integer()),
        *(sa.column(name, sa.Text()) for name in ("address", "step", "state")),
        *(sa.column(name, UtcDateTime()) for name in ("entered_at", "since", "due_at")),
        sa.column("why", sa.Text()),
        sa.column("goal_at", UtcDateTime()),
    )
    return [
        EnrolmentRow(
            **{**row, "state": EnrolmentState(row["state"]), "why": ExitReason(row["why"]) if row["why"] else None}
        )
        for row in connection.execute(statement, parameters).mappings()
    ]
