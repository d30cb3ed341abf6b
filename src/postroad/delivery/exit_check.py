"""Finds claimed touches whose recipients match the exit condition of their campaign, just before they are sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlmodel import col

from postroad.segment.sql import ConditionScope, where_sql
from postroad.segment.tree import RecipientCondition, from_json
from postroad.store.bulk import id_rows
from postroad.store.campaign import Campaign, Step, steps_of
from postroad.store.enrolment import exit_cause
from postroad.store.ledger import WAITING, TouchState


class _CampaignExit(NamedTuple):
    condition: RecipientCondition
    scope: ConditionScope
    """With a time of evaluation that is replaced at each check."""


class ClaimedStep(NamedTuple):
    """The step of a claimed touch, and the tokens of its earlier claims that ended without delivery."""

    step_id: int
    closed: frozenset[int]


class ExitCheck:
    """The exit conditions of campaigns, read once: they never change after the launch."""

    def __init__(self) -> None:
        self._exits: dict[int, _CampaignExit | None] = {}

    def leaving(self, connection: sa.Connection, claimed: Mapping[int, ClaimedStep], now: datetime) -> dict[int, str]:
        """Return the touches that must not be sent, with the cause of each.

        A touch that may have been sent by an earlier claim is not among them: what became of it is not known.

        Args:
            connection: A connection in the transaction that admits the touches.
            claimed: The touches by id.
            now: The time.

        Returns:
            The cause by touch.
        """
        by_exit: defaultdict[int, list[int]] = defaultdict(list)
        for touch_id, step in claimed.items():
            if self._exit_of(connection, step.step_id) is not None:
                by_exit[step.step_id].append(touch_id)
        causes = {}
        for step_id, touch_ids in by_exit.items():
            found = self._exits[step_id]
            assert found is not None  # noqa: S101  (checked above)
            scope = msgspec.structs.replace(found.scope, now=now)
            where = where_sql(found.condition, connection.dialect.name, scope)
            item, parameters = id_rows(connection, touch_ids)
            statement = sa.text(
                f"SELECT touch.id, touch.state, touch.claim FROM {item} CROSS JOIN touch CROSS JOIN recipient "
                f"WHERE touch.id = batch.id AND recipient.id = touch.recipient_id AND {where.sql}"
            )
            for id_, state, claim in connection.execute(statement, {**parameters, **where.parameters}):
                if TouchState(state) in WAITING or claim in claimed[id_].closed:
                    causes[id_] = exit_cause(found.condition.text)
        return causes

    def _exit_of(self, connection: sa.Connection, step_id: int) -> _CampaignExit | None:
        if step_id not in self._exits:
            self._exits[step_id] = _read_exit(connection, step_id)
        return self._exits[step_id]


def _read_exit(connection: sa.Connection, step_id: int) -> _CampaignExit | None:
    row = connection.execute(
        sa.select(col(Campaign.id), col(Campaign.audience_id), col(Campaign.journey), col(Campaign.created_at))
        .join(Step, col(Step.campaign_id) == col(Campaign.id))
        .where(col(Step.id) == step_id)
    ).one_or_none()
    if row is None or not row.journey or not row.journey.get("exit"):
        return None
    steps = {step.name: step.id for step in steps_of(connection, row.id) if step.id is not None}
    scope = ConditionScope(now=row.created_at, audience_id=row.audience_id, campaign_id=row.id, steps=steps)
    return _CampaignExit(from_json(row.journey["exit"]), scope)
