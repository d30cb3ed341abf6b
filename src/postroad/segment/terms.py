"""Translates sqlglot's nodes of values into terms of the tree, and checks that their types fit. It imports sqlglot."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NoReturn

from sqlglot import exp

from postroad.errors import did_you_mean, near_names
from postroad.field_types import WRITE, FieldType, read_date_ms, read_number, read_yes_no
from postroad.segment.errors import ConditionError
from postroad.segment.functions import ALL_NAMES, CONDITIONS, NOT_YET, VALUES
from postroad.segment.tree import (
    COLUMNS,
    Constant,
    Conversion,
    CurrentTime,
    DateLiteral,
    LowerCase,
    MergeField,
    NumberLiteral,
    RecipientColumn,
    RecipientDomain,
    RecipientProvider,
    ShiftedDate,
    Term,
    TextLiteral,
    YesNoLiteral,
    type_of,
    walk,
)
from postroad.settings import MAX_DURATION_MS, parse_duration_ms

MAX_TEXT = 1_000
"""Characters of a text in a condition."""

_CONVERSIONS: Final = {"number": FieldType.NUMBER, "date": FieldType.DATE, "text": FieldType.TEXT}
_CONSTANTS: Final[Mapping[str, Term]] = {
    "domain": RecipientDomain(),
    "provider": RecipientProvider(),
    "now": CurrentTime(),
}
_VARYING: Final = (MergeField, RecipientColumn, RecipientDomain, RecipientProvider)
_FEW: Final = 12


def start_of(node: exp.Expr) -> int:
    """Return the place of a node in the text."""
    return min((child.meta["start"] for child in node.walk() if child._meta and "start" in child.meta), default=0)


def fail(node: exp.Expr, message: str, remedy: str | None = None) -> NoReturn:
    """Raise ConditionError at a node."""
    raise ConditionError(message, start_of(node) + 1, remedy=remedy)


def parts_of(node: exp.Expr, *names: str) -> list[Any]:
    """Return the arguments of a node. Raises ConditionError if the node has others: SQL that no condition has."""
    if any(value for name, value in node.args.items() if name not in names):
        fail(node, "this form of SQL is not part of a condition", SEE)
    return [node.args.get(name) for name in names]


SEE: Final = "docs/reference/conditions.md lists what a condition may contain."


class TermTranslator:
    """Translates values. ``fields``: the known fields with their types; None: any name is a text."""

    def __init__(self, fields: Mapping[str, FieldType] | None, functions: Collection[str] = tuple(VALUES)) -> None:
        self._fields = fields
        self._functions = functions

    def term(self, node: exp.Expr) -> Term:
        """Return the term of a node. Raises ConditionError if the node is not a value."""
        match node:
            case exp.Paren():
                return self.term(parts_of(node, "this")[0])
            case exp.Column():
                [name] = parts_of(node, "this")
                return self._field(node, name)
            case exp.Literal() | exp.Boolean() | exp.Neg():
                return _literal(node)
            case exp.Anonymous():
                return self._call(node)
            case exp.Add() | exp.Sub():
                return self._shifted(node)
            case exp.Null():
                fail(node, "a comparison with NULL is never true", "Write IS NULL or IS NOT NULL.")
            case exp.National():
                fail(node, f"the duration {node.name} is not a value", "Add it to a date, as in now() - 7d.")
        fail(node, "a field, a value or a function is expected here", SEE)

    def _field(self, node: exp.Expr, identifier: exp.Expr) -> Term:
        name = identifier.name
        if self._fields is None:
            return MergeField(name, FieldType.TEXT)
        if name in COLUMNS:
            return RecipientColumn("address" if name == "address" else "time_zone")
        if name in self._fields:
            return MergeField(name, self._fields[name])
        near = near_names(name, self._fields) or [known for known in self._fields if known.lower() == name.lower()]
        hint = did_you_mean(near)
        if not near:
            listed = sorted(self._fields)[:_FEW]
            more = ", …" if len(self._fields) > _FEW else ""
            hint = (
                f"Known fields: {', '.join(listed)}{more}."
                if listed
                else "No field is known: import the audience first."
            )
            if name.lower() in ALL_NAMES:
                hint = f"The function is written {name.lower()}()."
        fail(node, f"there is no field {name!r}", f"{hint} A text is written in single quotes, as in '{name[:40]}'.")

    def _call(self, node: exp.Anonymous) -> Term:
        name = str(node.this).lower()
        if name not in self._functions:
            fail(node, *_unknown_function(name))
        arguments = node.expressions
        if len(arguments) != len(VALUES[name].arguments):
            needed = "one value" if VALUES[name].arguments else "no value"
            fail(node, f"{name}() takes {needed}", f"Write it as in {VALUES[name].example}.")
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        term = self.term(arguments[0])
        if name == "lower":
            return LowerCase(self.require(arguments[0], term, FieldType.TEXT))
        to, of = _CONVERSIONS[name], type_of(term)
        if isinstance(term, TextLiteral):
            return self.require(arguments[0], term, to)
        if of is to and to is not FieldType.TEXT:
            return term
        if not any(isinstance(part, _VARYING) for part in walk(term)):
            fail(arguments[0], f"{name}() needs a field", f"Write it as in {VALUES[name].example}.")
        if not (of is FieldType.TEXT or (to is FieldType.TEXT and isinstance(term, MergeField))):
            fail(arguments[0], f"{name}() cannot read {_ARTICLE[of]}", f"Write it as in {VALUES[name].example}.")
        return Conversion(to, term)

    def _shifted(self, node: exp.Add | exp.Sub) -> Term:
        left, right = parts_of(node, "this", "expression")
        sign = -1 if isinstance(node, exp.Sub) else 1
        if isinstance(node, exp.Add) and isinstance(left, exp.National):
            left, right = right, left
        term = self.term(left)
        if type_of(term) is not FieldType.DATE:
            hint = f"Write date({term.name})." if isinstance(term, MergeField) else "Write it as in now() - 7d."
            fail(left, f"only a date can be changed by a duration, and this is {_ARTICLE[type_of(term)]}", hint)
        by_ms = sign * duration_ms(right)
        if isinstance(term, ShiftedDate):
            by_ms += term.by_ms
            term = term.term
        if abs(by_ms) > MAX_DURATION_MS:
            fail(right, "the duration is longer than ten years", "Write a shorter one.")
        return ShiftedDate(term, by_ms)

    def require(self, node: exp.Expr, term: Term, needed: FieldType) -> Term:
        """Return a term as one of a type: a text literal may be a date, or yes or no.

        Raises:
            ConditionError: The term has another type.
        """
        given = type_of(term)
        if given is needed:
            return term
        if isinstance(term, TextLiteral) and needed is FieldType.DATE:
            if (at_ms := read_date_ms(term.value)) is None:
                fail(node, f"{term.value[:40]!r} is not a date", f"Write {WRITE[needed]}.")
            return DateLiteral(term.value, at_ms)
        if isinstance(term, TextLiteral) and needed is FieldType.YES_NO:
            if (value := read_yes_no(term.value)) is None:
                fail(node, f"{term.value[:40]!r} is neither yes nor no", "Write true or false.")
            return YesNoLiteral(value)
        fail(node, f"{_ARTICLE[needed]} is expected here, and this is {_ARTICLE[given]}", _how_to(term, needed))


_ARTICLE: Final = {
    FieldType.TEXT: "a text",
    FieldType.NUMBER: "a number",
    FieldType.DATE: "a date",
    FieldType.YES_NO: "yes or no",
}


def _how_to(term: Term, needed: FieldType) -> str | None:
    """Return how to write a term of another type."""
    if isinstance(term, MergeField) and needed is not FieldType.YES_NO:
        return (
            f"Write {needed}({term.name}), or declare its type in [audiences.NAME.fields]."
            if term.type is FieldType.TEXT
            else f"The field {term.name} is declared as {term.type}."
        )
    if isinstance(term, MergeField):
        return f"Declare {term.name} = 'yes/no' in [audiences.NAME.fields], or compare it with a text."
    if isinstance(term, TextLiteral) and needed is FieldType.NUMBER:
        return "Write the number without quotes."
    if isinstance(term, NumberLiteral) and needed is FieldType.TEXT:
        return "Write the value in single quotes, or read the field as a number: number(field)."
    return SEE


def _unknown_function(name: str) -> tuple[str, str]:
    """Return the error and the remedy for a function that does not exist, or that is not a value."""
    if name in NOT_YET:
        return f"{name}() does not exist: {NOT_YET[name]}", "Use an event, as in event('signed-up')."
    if name in VALUES or name in [known.value for known in CONDITIONS]:
        return f"{name}() cannot be used here", SEE
    hint = did_you_mean([f"{near}()" for near in near_names(name, ALL_NAMES)])
    return f"there is no function {name}()", hint or f"The functions are {', '.join(ALL_NAMES)}."


def unknown_function(node: exp.Anonymous) -> NoReturn:
    """Raise ConditionError for a function that does not exist here."""
    fail(node, *_unknown_function(str(node.this).lower()))


def duration_ms(node: exp.Expr) -> int:
    """Return a duration in ms: ``7d`` or ``'7d'``. Raises ConditionError if the node is not one."""
    if not (isinstance(node, exp.National) or (isinstance(node, exp.Literal) and node.is_string)):
        fail(node, "a duration is expected here", "Write it as in 30m, 12h or 7d.")
    try:
        found = parse_duration_ms(str(node.this))
    except ValueError as error:
        fail(node, str(error))
    if not 0 < found <= MAX_DURATION_MS:
        fail(node, f"the duration {node.this} is not between 1ms and ten years", "Write it as in 30m, 12h or 7d.")
    return found


def _literal(node: exp.Expr) -> Constant:
    match node:
        case exp.Boolean():
            return YesNoLiteral(bool(node.this))
        case exp.Neg():
            inner = parts_of(node, "this")[0]
            if not isinstance(inner, exp.Literal) or inner.is_string:
                fail(node, "a sign belongs to a number", "Write it as in -5.")
            return NumberLiteral(-_number(inner))
        case exp.Literal() if node.is_string:
            return TextLiteral(text_of(node))
    return NumberLiteral(_number(node))


def _number(node: exp.Expr) -> float:
    number = read_number(str(node.this))
    if number is None:
        fail(node, f"{str(node.this)[:40]} is not a number", f"Write {WRITE[FieldType.NUMBER]}.")
    return number + 0.0


def text_of(node: exp.Expr) -> str:
    """Return the text of a literal. Raises ConditionError if it is no text, or is empty or too long."""
    if not (isinstance(node, exp.Literal) and node.is_string):
        fail(node, "a text in single quotes is expected here", SEE)
    text = str(node.this)
    if not text:
        fail(node, "an empty text is the same as no value", "Write IS NULL or IS NOT NULL.")
    if len(text) > MAX_TEXT:
        fail(node, f"the text has more than {MAX_TEXT:,} characters", "Write a shorter one.")
    return text
