"""Reads a condition in plain Python: the reference for the SQL, and the source of explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final

from postroad.field_types import FieldType, field_text, lower_text, read_date_ms, read_number, read_yes_no, to_ms
from postroad.segment.patterns import matches
from postroad.segment.person import Person
from postroad.segment.tree import (
    AllOf,
    AnyOf,
    Clause,
    Comparison,
    Conversion,
    CurrentTime,
    DateLiteral,
    FunctionCall,
    FunctionName,
    InRange,
    IsMissing,
    IsYes,
    LikePattern,
    LowerCase,
    MergeField,
    Negation,
    NumberLiteral,
    OneOf,
    Operator,
    RecipientColumn,
    RecipientCondition,
    RecipientDate,
    RecipientDomain,
    RecipientProvider,
    ShiftedDate,
    Term,
    TextLiteral,
    YesNoLiteral,
)
from postroad.store.ledger import TouchState

Value = str | float | bool | None
"""The value of a term; dates are ms since the epoch."""

_OPERATORS: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    Operator.EQ: eq,
    Operator.NE: ne,
    Operator.LT: lt,
    Operator.LE: le,
    Operator.GT: gt,
    Operator.GE: ge,
}


def holds(condition: RecipientCondition, person: Person) -> bool:
    """Return whether a condition is true for a recipient."""
    return clause_holds(condition.root, person)


def missing_fields(condition: RecipientCondition, person: Person) -> list[str]:
    """Return the merge fields of a condition that have no value, or none of their type."""
    return [name for name, kind in condition.fields.items() if value_of(MergeField(name, kind), person) is None]


def date_of(date: RecipientDate, person: Person) -> int | None:
    """Return a date of a recipient in ms since the epoch, or None."""
    value = value_of(date.root, person)
    return int(value) if isinstance(value, int | float) else None


def clause_holds(clause: Clause, person: Person, fields: Mapping[str, object] | None = None) -> bool:
    """Return whether a clause is true. ``fields``: the fields of the event that it is about; None: the recipient's."""
    match clause:
        case AllOf():
            return all(clause_holds(part, person, fields) for part in clause.parts)
        case AnyOf():
            return any(clause_holds(part, person, fields) for part in clause.parts)
        case Negation():
            return not clause_holds(clause.part, person, fields)
        case IsMissing():
            return (value_of(clause.term, person, fields) is None) is not clause.negated
        case FunctionCall():
            return last_time(clause, person) is not None
        case _:
            return _predicate(clause, person, fields)


def _predicate(
    clause: Comparison | OneOf | InRange | LikePattern | IsYes, person: Person, fields: Mapping[str, object] | None
) -> bool:
    def value(term: Term) -> Any:
        return value_of(term, person, fields)

    match clause:
        case Comparison():
            left, right = value(clause.left), value(clause.right)
            return left is not None and right is not None and _OPERATORS[clause.operator](left, right)
        case OneOf():
            found = value(clause.term)
            return found is not None and (found in map(value, clause.values)) is not clause.negated
        case InRange():
            found, low, high = value(clause.term), value(clause.low), value(clause.high)
            return None not in (found, low, high) and (low <= found <= high) is not clause.negated
        case LikePattern():
            found = value(clause.term)
            return found is not None and matches(found, clause.pattern) is not clause.negated
        case IsYes():
            return value(clause.term) is True


def value_of(term: Term, person: Person, fields: Mapping[str, object] | None = None) -> Value:
    """Return the value of a term, or None."""
    match term:
        case MergeField():
            return _read(_text_of(term, person, fields), term.type)
        case Conversion():
            inner = term.term
            text = _text_of(inner, person, fields) if isinstance(inner, MergeField) else value_of(inner, person, fields)
            return _read(text if isinstance(text, str) else None, term.to)
        case TextLiteral() | NumberLiteral() | YesNoLiteral():
            return term.value
        case DateLiteral():
            return term.at_ms
        case CurrentTime():
            return to_ms(person.now)
        case ShiftedDate():
            value = value_of(term.term, person, fields)
            return value + term.by_ms if isinstance(value, int) else None
        case LowerCase():
            value = value_of(term.term, person, fields)
            return lower_text(value) if isinstance(value, str) else None
        case RecipientColumn():
            return person.address if term.name == "address" else person.time_zone
        case RecipientDomain():
            return person.domain
        case RecipientProvider():
            return person.provider


def _text_of(field: MergeField, person: Person, fields: Mapping[str, object] | None) -> str | None:
    return field_text(person.fields if fields is None else fields, field.name)


def _read(text: str | None, kind: FieldType) -> Value:
    if text is None or kind is FieldType.TEXT:
        return text
    match kind:
        case FieldType.NUMBER:
            return read_number(text)
        case FieldType.DATE:
            return read_date_ms(text)
        case FieldType.YES_NO:
            return read_yes_no(text)


UNKNOWN_TIME: Final = datetime.min.replace(tzinfo=UTC)
"""Stands for a time that is not recorded."""


def last_time(call: FunctionCall, person: Person) -> datetime | None:
    """Return when the past of a recipient last made a function true; None: never, within its length of the past.

    `UNKNOWN_TIME`: at a time that is not recorded.
    """
    times = _times(call, person)
    if call.within_ms is not None:
        since = person.now - timedelta(milliseconds=call.within_ms)
        times = [time for time in times if time is not None and time > since]
    return max((time for time in times if time is not None), default=UNKNOWN_TIME if times else None)


def _times(call: FunctionCall, person: Person) -> list[datetime | None]:
    """Return the times at which the past made a function true; None: a time that is not recorded."""
    joined = person.memberships
    match call.function:
        case FunctionName.IN_AUDIENCE:
            return [time for name, time in joined.items() if name == call.name]
        case FunctionName.JOINED:
            return [time for name, time in joined.items() if name == person.audience]
        case FunctionName.UNSUBSCRIBED:
            return [None] if person.unsubscribed else []
        case FunctionName.EVENT:
            return [
                event.at
                for event in person.events
                if event.name == call.name
                and event.at <= person.now
                and (call.where is None or clause_holds(call.where, person, event.fields))
            ]
        case _:
            return _touch_times(call, person)


def _touch_times(call: FunctionCall, person: Person) -> list[datetime | None]:
    everywhere = person.campaign_id is None or call.function in (FunctionName.MAILED, FunctionName.BOUNCED)
    touches = [touch for touch in person.touches if everywhere or touch.campaign_id == person.campaign_id]
    if call.function is FunctionName.REPLIED:
        return [time for touch in touches for time in touch.replied_at]
    state = TouchState.BOUNCED if call.function is FunctionName.BOUNCED else TouchState.ACCEPTED
    return [touch.settled_at for touch in touches if touch.state is state and call.name in (None, touch.step)]
