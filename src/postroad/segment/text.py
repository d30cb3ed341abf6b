"""Writes the tree of a condition as text, which `parse` reads back to the same tree."""

from __future__ import annotations

from typing import Final

from postroad.field_types import FieldType
from postroad.segment.tree import (
    AllOf,
    AnyOf,
    Clause,
    Comparison,
    Conversion,
    CurrentTime,
    DateLiteral,
    FunctionCall,
    InRange,
    IsMissing,
    IsYes,
    LikePattern,
    LowerCase,
    MergeField,
    Negation,
    NumberLiteral,
    OneOf,
    RecipientColumn,
    RecipientDomain,
    RecipientProvider,
    ShiftedDate,
    Term,
    TextLiteral,
    YesNoLiteral,
)

_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_RESERVED: Final = frozenset({"and", "or", "not", "in", "between", "like", "escape", "is", "null", "true", "false"})


def clause_text(clause: Clause) -> str:
    """Return a clause as text."""
    match clause:
        case AllOf() | AnyOf():
            word = " AND " if isinstance(clause, AllOf) else " OR "
            return word.join(
                f"({clause_text(part)})" if isinstance(part, AllOf | AnyOf) else clause_text(part)
                for part in clause.parts
            )
        case Negation():
            return f"NOT ({clause_text(clause.part)})"
        case Comparison():
            return f"{term_text(clause.left)} {clause.operator} {term_text(clause.right)}"
        case OneOf():
            listed = ", ".join(map(term_text, clause.values))
            return f"{term_text(clause.term)} {_not(clause.negated)}IN ({listed})"
        case InRange():
            ends = f"{term_text(clause.low)} AND {term_text(clause.high)}"
            return f"{term_text(clause.term)} {_not(clause.negated)}BETWEEN {ends}"
        case LikePattern():
            escape = r" ESCAPE '\'" if "\\" in clause.pattern else ""
            return f"{term_text(clause.term)} {_not(clause.negated)}LIKE {_quoted(clause.pattern)}{escape}"
        case IsMissing():
            return f"{term_text(clause.term)} IS {_not(clause.negated)}NULL"
        case IsYes():
            return term_text(clause.term)
        case FunctionCall():
            return _call_text(clause)


def term_text(term: Term) -> str:
    """Return a term as text."""
    match term:
        case MergeField() | RecipientColumn():
            return f'"{term.name}"' if term.name.lower() in _RESERVED else term.name
        case TextLiteral() | DateLiteral():
            return _quoted(term.value)
        case NumberLiteral():
            return f"{term.value:.0f}" if term.value.is_integer() and abs(term.value) < 1e15 else repr(term.value)
        case YesNoLiteral():
            return "true" if term.value else "false"
        case Conversion():
            return f"{'text' if term.to is FieldType.TEXT else term.to}({term_text(term.term)})"
        case ShiftedDate():
            return f"{term_text(term.term)} {'-' if term.by_ms < 0 else '+'} {duration_text(abs(term.by_ms))}"
        case LowerCase():
            return f"lower({term_text(term.term)})"
        case RecipientDomain():
            return "domain()"
        case RecipientProvider():
            return "provider()"
        case CurrentTime():
            return "now()"


def duration_text(duration_ms: int) -> str:
    """Return a duration in the largest unit that is exact, as in ``7d``."""
    unit, size = next((unit, size) for unit, size in _UNITS if duration_ms % size == 0)
    return f"{duration_ms // size}{unit}"


def _call_text(call: FunctionCall) -> str:
    arguments = [_quoted(call.name)] if call.name is not None else []
    if call.within_ms is not None:
        arguments.append(duration_text(call.within_ms))
    if call.where is not None:
        arguments.append(clause_text(call.where))
    return f"{call.function}({', '.join(arguments)})"


def _not(negated: bool) -> str:
    return "NOT " if negated else ""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
