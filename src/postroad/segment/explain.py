"""Explains why a recipient meets a condition or does not, clause by clause."""

from __future__ import annotations

from typing import NamedTuple

from postroad.field_types import FieldType
from postroad.segment.holds import UNKNOWN_TIME, clause_holds, last_time, value_of
from postroad.segment.person import Person
from postroad.segment.text import clause_text, duration_text, term_text
from postroad.segment.tree import (
    AllOf,
    AnyOf,
    Clause,
    FunctionCall,
    FunctionName,
    MergeField,
    Negation,
    Node,
    RecipientColumn,
    RecipientCondition,
    RecipientDomain,
    RecipientProvider,
    walk,
)


class ExplainedClause(NamedTuple):
    """A clause of a condition. ``depth``: how deep it is nested. ``seen``: the values that decided it."""

    depth: int
    text: str
    holds: bool
    seen: str


def explain(condition: RecipientCondition, person: Person) -> list[ExplainedClause]:
    """Return the clauses of a condition in their order, with their truth for a recipient and the values seen.

    AND, OR and NOT have lines of their own before their parts, unless the condition is one AND.
    """
    root = condition.root
    if isinstance(root, AllOf):
        return [line for part in root.parts for line in _lines(part, person, 0)]
    return _lines(root, person, 0)


def _lines(clause: Clause, person: Person, depth: int) -> list[ExplainedClause]:
    parts: tuple[Clause, ...] = ()
    word = ""
    match clause:
        case AllOf():
            parts, word = clause.parts, "all of"
        case AnyOf():
            parts, word = clause.parts, "any of"
        case Negation():
            parts, word = (clause.part,), "not"
    truth = clause_holds(clause, person)
    if not parts:
        return [ExplainedClause(depth, clause_text(clause), truth, _seen(clause, person))]
    below = [line for part in parts for line in _lines(part, person, depth + 1)]
    return [ExplainedClause(depth, word, truth, ""), *below]


def _seen(clause: Clause, person: Person) -> str:
    if isinstance(clause, FunctionCall):
        return _seen_past(clause, person)
    seen: dict[str, None] = {}  # in order, each once
    for node in walk(clause):
        if text := _seen_value(node, person):
            seen[text] = None
    return ", ".join(seen)


def _seen_value(node: Node, person: Person) -> str:
    match node:
        case MergeField():
            raw = person.fields.get(node.name)
            if not isinstance(raw, str) or not raw:
                return f"{node.name} is missing"
            unreadable = node.type is not FieldType.TEXT and value_of(node, person) is None
            return f"{node.name} is {raw!r}" + (f", which is not {_KINDS[node.type]}" if unreadable else "")
        case RecipientColumn() | RecipientDomain() | RecipientProvider():
            value = value_of(node, person)
            return f"{term_text(node)} is {value!r}" if value is not None else f"{term_text(node)} is missing"
    return ""


_KINDS = {FieldType.TEXT: "text", FieldType.NUMBER: "a number", FieldType.DATE: "a date", FieldType.YES_NO: "yes or no"}

_PAST = {
    FunctionName.IN_AUDIENCE: "in the audience",
    FunctionName.JOINED: "joined",
    FunctionName.ACCEPTED: "accepted",
    FunctionName.BOUNCED: "bounced",
    FunctionName.REPLIED: "replied",
    FunctionName.UNSUBSCRIBED: "unsubscribed",
    FunctionName.MAILED: "mailed",
    FunctionName.EVENT: "event",
}
_NOUNS = (FunctionName.EVENT,)


def _seen_past(call: FunctionCall, person: Person) -> str:
    words = _PAST[call.function]
    last = last_time(FunctionCall(call.function, call.name, None, call.where), person)
    if last is None:
        return f"no {words}" if call.function in _NOUNS else f"not {words}"
    if last == UNKNOWN_TIME:
        return f"{words}, at a time that is not recorded" if call.within_ms else words
    outside = call.within_ms is not None and last_time(call, person) is None
    older = f", more than {duration_text(call.within_ms or 0)} ago" if outside else ""
    return f"{words} {'at ' if call.function not in _NOUNS else ''}{last:%Y-%m-%d %H:%M} UTC{older}"
