"""Translates sqlglot's nodes of conditions into clauses of the tree. A node that is not listed is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sqlglot import exp

from postroad.field_types import FieldType
from postroad.segment.dialect import INFIX_NOT, parse_expression
from postroad.segment.functions import CONDITIONS, VALUES, ArgumentKind, FunctionSignature
from postroad.segment.terms import SEE, TermTranslator, duration_ms, fail, parts_of, text_of, unknown_function
from postroad.segment.tree import (
    AllOf,
    AnyOf,
    Clause,
    Comparison,
    Constant,
    FunctionCall,
    FunctionName,
    InRange,
    IsMissing,
    IsYes,
    LikePattern,
    Negation,
    OneOf,
    Operator,
    Term,
    type_of,
    walk,
)

__all__ = ["ClauseTranslator", "TermTranslator", "parse_expression"]

MAX_VALUES = 1_000
MAX_WILDCARDS = 10

_OPERATORS: Final[Mapping[type[exp.Expr], Operator]] = {
    exp.EQ: Operator.EQ,
    exp.NEQ: Operator.NE,
    exp.LT: Operator.LT,
    exp.LTE: Operator.LE,
    exp.GT: Operator.GT,
    exp.GTE: Operator.GE,
}
_EVENT_VALUES: Final = ("number", "date", "text", "lower", "now")


class ClauseTranslator:
    """Translates conditions on a recipient, or on an event (``fields`` None)."""

    def __init__(self, fields: Mapping[str, FieldType] | None) -> None:
        self._calls = CONDITIONS if fields is not None else {}
        self._terms = TermTranslator(fields, tuple(VALUES) if fields is not None else _EVENT_VALUES)

    def clause(self, node: exp.Expr) -> Clause:
        """Return the clause of a node. Raises ConditionError if the node is not a condition."""
        match node:
            case exp.Paren():
                return self.clause(parts_of(node, "this")[0])
            case exp.And() | exp.Or():
                kind = AllOf if isinstance(node, exp.And) else AnyOf
                return kind(tuple(self.clause(part) for part in node.flatten(unnest=False)))
            case exp.Not():
                return self._negated(node, parts_of(node, "this")[0])
            case exp.In() | exp.Between() | exp.Like() | exp.Escape() | exp.Is():
                return _not_constant(node, self._predicate(node))
            case exp.Anonymous() if str(node.this).lower() in self._calls:
                return self._call(node, FunctionName(str(node.this).lower()))
            case exp.Anonymous() if str(node.this).lower() not in VALUES:
                unknown_function(node)
        if type(node) in _OPERATORS:
            left, right = parts_of(node, "this", "expression")
            return _not_constant(node, self._comparison(node, _OPERATORS[type(node)], left, right))
        term = self._terms.term(node)
        if type_of(term) is FieldType.YES_NO and not isinstance(node, exp.Boolean):
            return IsYes(term)
        return fail(node, "a comparison is expected here, and this is only a value", "Write it as in plan = 'trial'.")

    def _negated(self, node: exp.Not, part: Any) -> Clause:
        clause = self.clause(part)
        if isinstance(part, exp.Is) and isinstance(clause, IsMissing):
            return IsMissing(clause.term, not clause.negated)
        if node.meta.get(INFIX_NOT) and isinstance(clause, OneOf):
            return OneOf(clause.term, clause.values, negated=True)
        if node.meta.get(INFIX_NOT) and isinstance(clause, InRange):
            return InRange(clause.term, clause.low, clause.high, negated=True)
        return Negation(clause)

    def _predicate(self, node: exp.Expr) -> Clause:
        match node:
            case exp.In():
                return self._one_of(node)
            case exp.Between():
                return self._in_range(node)
            case exp.Escape():
                like, escape = parts_of(node, "this", "expression")
                if isinstance(like, exp.Like):
                    return self._like(like, escape)
            case exp.Like():
                return self._like(node, None)
            case exp.Is():
                of, what = parts_of(node, "this", "expression")
                if not isinstance(what, exp.Null):
                    fail(node, "after IS only NULL or NOT NULL is possible", "Compare with = true or = false.")
                return IsMissing(self._terms.term(of))
        return fail(node, "ESCAPE belongs to LIKE", SEE)

    def _comparison(self, node: exp.Expr, operator: Operator, left: exp.Expr, right: exp.Expr) -> Clause:
        one, other = self._fitting(left, right)
        if type_of(one) is FieldType.YES_NO and operator not in (Operator.EQ, Operator.NE):
            fail(node, f"yes and no cannot be compared by {operator}", "Use = or !=.")
        return Comparison(operator, one, other)

    def _fitting(self, left: exp.Expr, right: exp.Expr) -> tuple[Term, Term]:
        """Return two terms of one type. A literal takes the type of the other side."""
        one, other = self._terms.term(left), self._terms.term(right)
        if isinstance(left, exp.Literal | exp.Neg) and not isinstance(right, exp.Literal | exp.Neg):
            return self._terms.require(left, one, type_of(other)), other
        return one, self._terms.require(right, other, type_of(one))

    def _one_of(self, node: exp.In) -> OneOf:
        of, values = parts_of(node, "this", "expressions")
        if not values:
            fail(node, "IN needs a list of values", "Write it as in country IN ('DE', 'AT').")
        if len(values) > MAX_VALUES:
            fail(node, f"the list has more than {MAX_VALUES:,} values", "Divide it, or use a merge field.")
        for value in values:
            if not isinstance(value, exp.Literal | exp.Neg | exp.Boolean):
                fail(value, "a list contains only values", "Write it as in country IN ('DE', 'AT').")
        term = self._terms.term(of)
        needed = type_of(term)
        return OneOf(term, tuple(self._terms.require(value, self._terms.term(value), needed) for value in values))

    def _in_range(self, node: exp.Between) -> InRange:
        of, low, high = parts_of(node, "this", "low", "high")
        term = self._terms.term(of)
        if type_of(term) is FieldType.YES_NO:
            fail(node, "yes and no have no order", "Use = or !=.")
        first, last = (self._terms.require(end, self._terms.term(end), type_of(term)) for end in (low, high))
        return InRange(term, first, last)

    def _like(self, node: exp.Like, escape: Any) -> LikePattern:
        of, pattern, negate = parts_of(node, "this", "expression", "negate")
        term = self._terms.require(of, self._terms.term(of), FieldType.TEXT)
        return LikePattern(term, _canonical(pattern, escape), negated=bool(negate))

    def _call(self, node: exp.Anonymous, function: FunctionName) -> FunctionCall:
        signature = self._calls[function]
        given = _bound(node, function, signature)
        named = given.get("name", given.get("step"))
        within, where = given.get("within"), given.get("where")
        return FunctionCall(
            function,
            _name(named) if named is not None else None,
            duration_ms(within) if within is not None else None,
            ClauseTranslator(None).clause(where) if where is not None else None,
        )


def _name(node: exp.Expr) -> str:
    """Return the name of an audience, a step or an event. Raises ConditionError for a text that cannot be one."""
    name = text_of(node)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        fail(node, f"{name[:40]!r} cannot be a name", "Names have lower-case letters, digits, - and _.")
    return name


def _not_constant(node: exp.Expr, clause: Clause) -> Clause:
    """Return a clause. Raises ConditionError if it is the same for all recipients, at all times."""
    if all(isinstance(part, Constant | type(clause)) for part in walk(clause)):
        fail(node, "this is the same for all recipients", "Compare a field, as in plan = 'trial'.")
    return clause


def _bound(node: exp.Anonymous, function: str, signature: FunctionSignature) -> dict[str, exp.Expr]:
    """Return the arguments of a call by name. An argument without a name is the next one that it fits.

    Raises:
        ConditionError: An argument is unknown, does not fit, is missing or is given twice.
    """
    given: dict[str, exp.Expr] = {}
    usage = f"Write it as in {signature.example}."
    for argument in node.expressions:
        if isinstance(argument, exp.Kwarg):
            key, value = argument.this.name.lower(), argument.expression
            if key not in signature.arguments:
                fail(argument, f"{function}() has no argument {key}", usage)
            if key in given:
                fail(argument, f"{function}() has {key} twice", usage)
        else:
            value = argument
            free = [name for name in signature.arguments if name not in given]
            key = next((name for name in free if _fits(value, signature.arguments[name])), "")
            if not key:
                expected = " or ".join(signature.arguments[name] for name in free)
                fail(value, f"{function}() expects {expected or 'no more arguments'} here", usage)
        given[key] = value
    missing = [name for name in list(signature.arguments)[: signature.required] if name not in given]
    if missing:
        fail(node, f"{function}() needs {signature.arguments[missing[0]]}", usage)
    return given


def _fits(node: exp.Expr, kind: ArgumentKind) -> bool:
    """Return whether an argument without a name may be one of this kind."""
    is_text = isinstance(node, exp.Literal) and node.is_string
    match kind:
        case ArgumentKind.NAME:
            return is_text
        case ArgumentKind.DURATION:
            return isinstance(node, exp.National) or is_text
        case ArgumentKind.CONDITION:
            return not is_text and not isinstance(node, exp.National)
    return True


def _canonical(node: exp.Expr, escape: Any) -> str:
    r"""Return a pattern in which ``\`` escapes ``%``, ``_`` and itself, whatever escaped them before."""
    pattern = text_of(node)
    mark = text_of(escape) if escape is not None else ""
    if escape is not None and len(mark) != 1:
        fail(escape, "ESCAPE needs one character", "Write it as in LIKE '100!%' ESCAPE '!'.")
    found, place = [], 0
    while place < len(pattern):
        character = pattern[place]
        if mark and character == mark:
            place += 1
            if pattern[place : place + 1] not in (mark, "%", "_") or place == len(pattern):
                fail(node, f"{mark!r} escapes nothing here", f"After it %, _ or {mark} must follow.")
            character = pattern[place]
            found.append(f"\\{character}" if character in "\\%_" else character)
        elif character == "\\":
            found.append("\\\\")
        elif character != "%" or found[-1:] != ["%"]:
            found.append(character)
        place += 1
    if found.count("%") > MAX_WILDCARDS:
        fail(node, f"the pattern has more than {MAX_WILDCARDS} %", "Write a simpler one.")
    return "".join(found)
