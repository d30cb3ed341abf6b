"""What sqlglot may recognise in a condition: a few operators, texts, numbers, names and calls. It imports sqlglot.

Only the tokens of `_ALLOWED` reach the parser. Every keyword of SQL that is not among them is an ordinary name, so a
field can be called ``order`` or ``date``, and ``SELECT`` begins nothing.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import ClassVar, Final, NoReturn

from sqlglot import exp, parser, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, TokenError
from sqlglot.tokenizer_core import Token, TokenType

from postroad.segment.errors import MAX_CONDITION_CHARACTERS, ConditionError

MAX_DEPTH = 20
"""Parentheses, NOTs and signs within each other."""

INFIX_NOT: Final = "infix_not"
"""Key in the metadata of a node: it was written NOT IN or NOT BETWEEN, not NOT (…)."""

_WORDS: Final = {
    "AND": TokenType.AND,
    "OR": TokenType.OR,
    "NOT": TokenType.NOT,
    "IN": TokenType.IN,
    "BETWEEN": TokenType.BETWEEN,
    "LIKE": TokenType.LIKE,
    "ESCAPE": TokenType.ESCAPE,
    "IS": TokenType.IS,
    "NULL": TokenType.NULL,
    "TRUE": TokenType.TRUE,
    "FALSE": TokenType.FALSE,
}
_SIGNS: Final = {
    "<>": TokenType.NEQ,
    "!=": TokenType.NEQ,
    "<=": TokenType.LTE,
    ">=": TokenType.GTE,
    "=>": TokenType.FARROW,
}
_CHARACTERS: Final = {
    "(": TokenType.L_PAREN,
    ")": TokenType.R_PAREN,
    ",": TokenType.COMMA,
    "=": TokenType.EQ,
    "<": TokenType.LT,
    ">": TokenType.GT,
    "+": TokenType.PLUS,
    "-": TokenType.DASH,
    "'": TokenType.UNKNOWN,
    '"': TokenType.UNKNOWN,
}
DURATION: Final = TokenType.NATIONAL_STRING
"""A token type that sqlglot has for N'…', which no condition contains. Its node is `exp.National`."""
_NAMES: Final = {TokenType.VAR, TokenType.IDENTIFIER}
_ALLOWED: Final = (
    {*_WORDS.values(), *_SIGNS.values(), *_CHARACTERS.values(), *_NAMES, TokenType.STRING, TokenType.NUMBER}
) - {TokenType.UNKNOWN}


class ConditionDialect(Dialect):
    """A dialect of sqlglot that has only what a condition may contain."""

    class Tokenizer(tokens.Tokenizer):
        QUOTES: ClassVar[list[tuple[str, str] | str]] = ["'"]
        IDENTIFIERS: ClassVar[list[str | tuple[str, str]]] = ['"']
        COMMENTS: ClassVar[list[str | tuple[str, str]]] = []
        BIT_STRINGS: ClassVar[list[str | tuple[str, str]]] = []
        HEX_STRINGS: ClassVar[list[str | tuple[str, str]]] = []
        BYTE_STRINGS: ClassVar[list[str | tuple[str, str]]] = []
        KEYWORDS: ClassVar[dict[str, TokenType]] = {**_WORDS, **_SIGNS}
        SINGLE_TOKENS: ClassVar[dict[str, TokenType]] = _CHARACTERS
        COMMANDS: ClassVar[set[TokenType]] = set()

    class Parser(parser.Parser):
        FUNCTIONS: ClassVar = {}
        NO_PAREN_FUNCTIONS: ClassVar = {}
        FUNCTION_PARSERS: ClassVar = {}
        NO_PAREN_FUNCTION_PARSERS: ClassVar = {}

        def _negate_range(self, this: exp.Expr | None = None) -> exp.Expr | None:
            # Elsewhere `NOT x IN (…)` and `x NOT IN (…)` are the same node.
            negated = super()._negate_range(this)
            if isinstance(negated, exp.Not):
                negated.meta[INFIX_NOT] = True
            return negated


def parse_expression(text: str) -> exp.Expr:
    """Return sqlglot's tree of a condition or of a term.

    Raises:
        ConditionError: The text is not one, is too long or is nested too deeply.
    """
    if len(text) > MAX_CONDITION_CHARACTERS:
        raise ConditionError(
            f"the condition has {len(text):,} characters, and {MAX_CONDITION_CHARACTERS:,} is the most",
            MAX_CONDITION_CHARACTERS + 1,
            remedy="Divide it, or mark the recipients in a merge field of the import.",
        )
    for place, character in enumerate(text, start=1):
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise ConditionError(f"the character {character!a} is not text", place)
    dialect = ConditionDialect()
    try:
        found = dialect.tokenize(text)
    except TokenError:
        raise ConditionError(
            "a quote is not closed", _open_quote(text), remedy="Write a quote within a text twice: 'it''s'."
        ) from None
    _check(found)
    found = _join_durations(found)
    try:
        [root] = dialect.parser().parse_into(exp.Condition, found, text)
    except ParseError as error:
        return _fail_at(error, text)
    except RecursionError:
        raise ConditionError("the condition is nested too deeply", 1, remedy="Write it with less nesting.") from None
    if root is None:
        raise ConditionError("the condition is empty", 1, remedy="Write one, as in plan = 'trial'.")
    return root


_DURATION: Final = re.compile(r"[0-9]+(\.[0-9]+)?(ms|s|m|h|d)", re.ASCII)


def _join_durations(found: list[Token]) -> list[Token]:
    """Return the tokens with each duration, such as ``7d``, as one token. Nothing else has its type.

    Raises:
        ConditionError: A number continues with letters that are no unit of time.
    """
    joined: list[Token] = []
    for token in found:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.token_type is TokenType.NUMBER
            and token.token_type is TokenType.VAR
            and last.end + 1 == token.start
        ):
            duration = last.text + token.text
            if not _DURATION.fullmatch(duration):
                raise ConditionError(
                    f"{duration[:40]!r} is neither a number nor a duration",
                    last.start + 1,
                    remedy="Write a duration as in 30m, 12h or 7d, and a text in single quotes.",
                )
            joined[-1] = Token(DURATION, duration, token.line, token.col, last.start, token.end)
        else:
            joined.append(token)
    return joined


def _check(found: list[Token]) -> None:
    """Raise ConditionError for a token that no condition has, and for nesting that is too deep."""
    if not found:
        raise ConditionError("the condition is empty", 1, remedy="Write one, as in plan = 'trial'.")
    _check_commas(found)
    _check_operators(found)
    depth = prefixes = 0
    for token in found:
        kind, text = token.token_type, token.text
        is_name = kind is TokenType.IDENTIFIER or (kind is TokenType.VAR and text.isidentifier())
        if kind not in _ALLOWED or (kind in _NAMES and not is_name) or token.comments:
            raise ConditionError(
                f"{text[:40]!r} is not part of a condition",
                token.start + 1,
                remedy="Write fields, values, comparisons, AND, OR, NOT and the functions of "
                "docs/reference/conditions.md.",
            )
        depth += (kind is TokenType.L_PAREN) - (kind is TokenType.R_PAREN)
        prefixes = prefixes + 1 if kind in (TokenType.NOT, TokenType.DASH, TokenType.PLUS) else 0
        if depth + prefixes > MAX_DEPTH:
            raise ConditionError(
                f"the condition is nested more than {MAX_DEPTH} deep",
                token.start + 1,
                remedy="Write it with less nesting.",
            )


_OPERANDS: Final = {TokenType.L_PAREN, TokenType.NOT, TokenType.DASH, TokenType.PLUS, TokenType.STRING}
_BEGINNINGS: Final = _OPERANDS | _NAMES | {TokenType.NUMBER, TokenType.TRUE, TokenType.FALSE, TokenType.NULL}


def _check_commas(found: list[Token]) -> None:
    """Raise ConditionError if the condition begins with an operator, or a comma separates nothing."""
    if found[0].token_type in _ALLOWED - _BEGINNINGS:
        raise ConditionError(
            f"the condition begins with {found[0].text!r}", found[0].start + 1, remedy="Write a field or a value first."
        )
    for left, right in pairwise(found):
        before, after = left.token_type, right.token_type
        if (after is TokenType.COMMA and before in (TokenType.COMMA, TokenType.L_PAREN)) or (
            before is TokenType.COMMA and after is TokenType.R_PAREN
        ):
            raise ConditionError(
                f"a value is expected before {right.text!r}", right.start + 1, remedy="Add it, or remove the comma."
            )


_COMPARISONS: Final = {TokenType.EQ, TokenType.NEQ, TokenType.LT, TokenType.LTE, TokenType.GT, TokenType.GTE}


def _check_operators(found: list[Token]) -> None:
    """Raise ConditionError for two comparisons that follow each other, such as ``==``."""
    for left, right in pairwise(found):
        if left.token_type in _COMPARISONS and right.token_type in _COMPARISONS:
            together = left.text + right.text
            remedy = "Write =, as in plan = 'trial'." if set(together) == {"="} else "Write =, <>, <, <=, > or >=."
            raise ConditionError(f"{together!r} is not a comparison", left.start + 1, remedy=remedy)


def _open_quote(text: str) -> int:
    """Return the column of the quote that is not closed."""
    quote, place = "", 0
    for column, character in enumerate(text, start=1):
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote, place = character, column
    return place or len(text)


_MISSING: Final = "Required keyword"


def _fail_at(error: ParseError, text: str) -> NoReturn:
    """Raise ConditionError for text that is no condition, with what was expected instead."""
    fault = error.errors[0]
    found = str(fault.get("highlight") or "")
    column = max(int(fault.get("col") or len(text)) - max(len(found), 1) + 1, 1)
    if "\n" in text:  # Columns of sqlglot count within a line.
        column += sum(len(line) for line in text.splitlines(keepends=True)[: int(fault.get("line") or 1) - 1])
    description = str(fault.get("description") or "")
    if description.startswith(_MISSING):
        raise ConditionError(
            f"after {found!r} a field, a value or a function is expected", column, remedy="Add it, or remove the rest."
        )
    if description.startswith("Expecting )"):
        raise ConditionError(
            f"a ) is expected {f'at {found!r}' if found and found != ')' else 'at the end'}",
            column,
            remedy="Close each ( with a ), and put a comma between the values of a list.",
        )
    raise ConditionError(
        f"{found!r} is not expected here: AND, OR, a comparison or the end is",
        column,
        remedy="Write texts in single quotes, as in plan = 'trial'.",
    )
