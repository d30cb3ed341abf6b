"""Writes a condition as SQL for SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from postroad.errors import StateError, unknown_name
from postroad.segment.tree import (
    AllOf,
    AnyOf,
    Clause,
    Comparison,
    FunctionCall,
    FunctionName,
    InRange,
    IsMissing,
    IsYes,
    LikePattern,
    Negation,
    OneOf,
    Operator,
    RecipientCondition,
    RecipientDate,
)
from postroad.segment.values import DIALECTS, Parameters, ValueWriter


class ConditionScope(msgspec.Struct, frozen=True, kw_only=True):
    """What the functions of a condition refer to.

    ``audience_id``: the audience of `joined()` and `unsubscribed()`. ``campaign_id``: the campaign of `accepted()` and
    `replied()`; None: all campaigns. ``steps``: ids of the campaign's steps by their names.
    """

    now: datetime
    audience_id: int | None = None
    campaign_id: int | None = None
    steps: Mapping[str, int] = {}


class SqlCondition(NamedTuple):
    """SQL of a condition or a date, and its parameters."""

    sql: str
    parameters: dict[str, Any]


def where_sql(condition: RecipientCondition, dialect: str, scope: ConditionScope, prefix: str = "c") -> SqlCondition:
    """Return the SQL of a condition over the row ``recipient``. It is true or false, and never NULL.

    Args:
        condition: The condition.
        dialect: ``sqlite`` or ``postgresql``.
        scope: What its functions refer to.
        prefix: Beginning of the parameters' names. Conditions of one statement need different ones.

    Returns:
        The SQL and its parameters.

    Raises:
        StateError: It names a step that the scope does not have.
    """
    parameters = Parameters(prefix)
    values = ValueWriter(DIALECTS[dialect], parameters, scope.now, "recipient.attributes")
    sql = _ClauseWriter(values, scope).clause(condition.root)
    return SqlCondition(sql, parameters.values)


def event_sql(condition: RecipientCondition, dialect: str, scope: ConditionScope, prefix: str = "e") -> SqlCondition:
    """Return the SQL of a condition that is one event, over the rows ``recipient`` and ``recipient_event``.

    Args:
        condition: The condition.
        dialect: ``sqlite`` or ``postgresql``.
        scope: What its functions refer to.
        prefix: Beginning of the parameters' names.

    Returns:
        The SQL, which is true for an event that meets the condition, and its parameters.

    Raises:
        ValueError: The condition is not one event.
    """
    if not isinstance(condition.root, FunctionCall) or condition.root.function is not FunctionName.EVENT:
        raise ValueError(f"{condition.text} is not an event")
    parameters = Parameters(prefix)
    values = ValueWriter(DIALECTS[dialect], parameters, scope.now, "recipient.attributes")
    return SqlCondition(" AND ".join(_ClauseWriter(values, scope).event(condition.root)), parameters.values)


def date_sql(date: RecipientDate, dialect: str, now: datetime, prefix: str = "d") -> SqlCondition:
    """Return the SQL of a date of the row ``recipient`` in ms since the epoch. It is NULL if there is no date.

    Args:
        date: The date.
        dialect: ``sqlite`` or ``postgresql``.
        now: The time of the evaluation.
        prefix: Beginning of the parameters' names.

    Returns:
        The SQL and its parameters.
    """
    parameters = Parameters(prefix)
    sql = ValueWriter(DIALECTS[dialect], parameters, now, "recipient.attributes").value(date.root)
    return SqlCondition(sql, parameters.values)


_OPERATORS: Final = {operator: operator.value for operator in Operator} | {Operator.NE: "<>"}


class _ClauseWriter:
    def __init__(self, values: ValueWriter, scope: ConditionScope) -> None:
        self._values = values
        self._scope = scope

    def clause(self, clause: Clause) -> str:
        match clause:
            case AllOf():
                return f"({' AND '.join(map(self.clause, clause.parts))})"
            case AnyOf():
                return f"({' OR '.join(map(self.clause, clause.parts))})"
            case Negation():
                return f"(NOT {self.clause(clause.part)})"
            case IsMissing():
                return f"({self._values.value(clause.term)}) IS {'NOT ' if clause.negated else ''}NULL"
            case FunctionCall():
                return self._call(clause)
            case _:
                # NULL is false, also for the negated operators.
                return f"COALESCE({self._predicate(clause)}, FALSE)"

    def _predicate(self, clause: Comparison | OneOf | InRange | LikePattern | IsYes) -> str:
        value, comparable = self._values.value, self._values.comparable
        match clause:
            case Comparison():
                return f"{comparable(clause.left)} {_OPERATORS[clause.operator]} {value(clause.right)}"
            case OneOf():
                listed = ", ".join(map(value, clause.values))
                return f"{comparable(clause.term)} {'NOT ' if clause.negated else ''}IN ({listed})"
            case InRange():
                low, high = value(clause.low), value(clause.high)
                if not clause.negated:
                    return f"{comparable(clause.term)} BETWEEN {low} AND {high}"
                # A term may be outside one end while the other has no value.
                return (
                    f"({comparable(clause.term)} NOT BETWEEN {low} AND {high} "
                    f"AND ({low}) IS NOT NULL AND ({high}) IS NOT NULL)"
                )
            case LikePattern():
                like = self._values.dialect.like(f"({value(clause.term)})", clause.pattern, self._values.parameters)
                return f"NOT ({like})" if clause.negated else like
            case IsYes():
                return value(clause.term)

    def _call(self, call: FunctionCall) -> str:
        """Return the SQL of a function.

        A subquery with LIMIT is evaluated for each recipient, by an index. PostgreSQL may evaluate an EXISTS for all
        recipients at once, which reads whole tables.
        """
        table, conditions = self._source(call)
        if table is None:
            return "FALSE"
        return f"COALESCE((SELECT TRUE FROM {table} WHERE {' AND '.join(conditions)} LIMIT 1), FALSE)"

    def _source(self, call: FunctionCall) -> tuple[str | None, list[str]]:
        """Return the table of a function and the conditions on its rows. None: it is false for all."""
        add = self._values.parameters.add
        match call.function:
            case FunctionName.IN_AUDIENCE:
                audience = f"(SELECT audience.id FROM audience WHERE audience.name = {add(call.name or '')})"
                return "audience_member", [*_MEMBER, f"audience_member.audience_id = {audience}"]
            case FunctionName.JOINED:
                if self._scope.audience_id is None:
                    return None, []
                audience = f"audience_member.audience_id = {add(self._scope.audience_id)}"
                return "audience_member", [*_MEMBER, audience, *self._within(call, "audience_member.joined_at")]
            case FunctionName.UNSUBSCRIBED:
                audiences = f"(0, {add(self._scope.audience_id or 0)})"
                return "suppression", [*_UNSUBSCRIBED, f"suppression.audience_id IN {audiences}"]
            case FunctionName.EVENT:
                return "recipient_event", self.event(call)
            case FunctionName.REPLIED:
                table = "touch JOIN delivery_event ON delivery_event.touch_id = touch.id"
                conditions = [_TOUCH, "delivery_event.cause = 'reply'", *self._within(call, "delivery_event.at")]
                return table, [*conditions, *self._in_campaign()]
            case FunctionName.ACCEPTED:
                conditions = [_TOUCH, "touch.state = 'accepted'", *self._within(call, "touch.settled_at")]
                return "touch", [*conditions, *(self._in_campaign() if call.name is None else self._of_step(call.name))]
            case FunctionName.MAILED | FunctionName.BOUNCED:
                state = "accepted" if call.function is FunctionName.MAILED else "bounced"
                return "touch", [_TOUCH, f"touch.state = '{state}'", *self._within(call, "touch.settled_at")]

    def event(self, call: FunctionCall) -> list[str]:
        """Return the conditions on the row ``recipient_event`` of an event."""
        values = self._values
        conditions = [
            "recipient_event.recipient_id = recipient.id",
            f"recipient_event.name = {values.parameters.add(call.name or '')}",
            f"recipient_event.at <= {values.now()}",
            *self._within(call, "recipient_event.at"),
        ]
        if call.where is not None:
            fields = ValueWriter(values.dialect, values.parameters, self._scope.now, "recipient_event.fields")
            conditions.append(_ClauseWriter(fields, self._scope).clause(call.where))
        return conditions

    def _within(self, call: FunctionCall, column: str) -> list[str]:
        return [] if call.within_ms is None else [f"{column} > {self._values.since(call.within_ms)}"]

    def _in_campaign(self) -> list[str]:
        if self._scope.campaign_id is None:
            return []
        # With + 0 no index of campaigns is used, which would read all touches of this one.
        return [f"touch.campaign_id + 0 = {self._values.parameters.add(self._scope.campaign_id)}"]

    def _of_step(self, name: str) -> list[str]:
        if self._scope.campaign_id is None:
            raise StateError(
                f"accepted('{name}') names a step, and there is no campaign here",
                remedy="Write accepted() without a step, or use it in a step of a campaign.",
            )
        if name not in self._scope.steps:
            raise unknown_name("step", name, self._scope.steps)
        add = self._values.parameters.add
        return [
            f"touch.campaign_id = {add(self._scope.campaign_id)}",
            f"touch.step_id = {add(self._scope.steps[name])}",
        ]


_TOUCH: Final = "touch.recipient_id = recipient.id"
_MEMBER: Final = ("audience_member.recipient_id = recipient.id",)
_UNSUBSCRIBED: Final = ("suppression.address = recipient.address", "suppression.reason = 'unsubscribe'")
