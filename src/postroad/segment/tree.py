"""The tree of a condition: immutable, with its form as JSON for the store.

A condition is always true or false. A comparison is false if a side of it has no value, and so is its negated form
(``!=``, ``NOT IN``, ``NOT LIKE``, ``NOT BETWEEN``). ``NOT (…)`` reverses the truth of what it contains.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final, Literal, TypeVar, cast

import msgspec

from postroad.errors import DataError
from postroad.field_types import FieldType


class _Node(msgspec.Struct, frozen=True, tag_field="node", tag=str.lower):
    pass


class MergeField(_Node, frozen=True, tag="field"):
    """The value of a merge field, read by its type."""

    name: str
    type: FieldType


COLUMNS: Final = ("address", "time_zone")
"""What every recipient has in addition to merge fields. A CSV has columns of these names."""


class RecipientColumn(_Node, frozen=True, tag="column"):
    """The address or the time zone of the recipient, as a text."""

    name: Literal["address", "time_zone"]


class TextLiteral(_Node, frozen=True, tag="text"):
    """A text."""

    value: str


class NumberLiteral(_Node, frozen=True, tag="number"):
    """A number."""

    value: float


class YesNoLiteral(_Node, frozen=True, tag="yes/no"):
    """Yes or no."""

    value: bool


class DateLiteral(_Node, frozen=True, tag="date"):
    """A date: its text, and its time in ms since the epoch."""

    value: str
    at_ms: int


class Conversion(_Node, frozen=True, tag="convert"):
    """A term read as another type: `number()`, `date()` or `text()`."""

    to: FieldType
    term: Term


class LowerCase(_Node, frozen=True, tag="lower"):
    """A text in lower case."""

    term: Term


class RecipientDomain(_Node, frozen=True, tag="domain"):
    """The domain of the recipient's address."""


class RecipientProvider(_Node, frozen=True, tag="provider"):
    """The mailbox provider of the recipient's address; no value before its domain was looked up."""


class CurrentTime(_Node, frozen=True, tag="now"):
    """The time of the evaluation."""


class ShiftedDate(_Node, frozen=True, tag="shift"):
    """A date plus a duration, which may be negative."""

    term: Term
    by_ms: int


class Operator(StrEnum):
    """A comparison of two values of one type."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


class Comparison(_Node, frozen=True, tag="compare"):
    """Two terms compared."""

    operator: Operator
    left: Term
    right: Term


class OneOf(_Node, frozen=True, tag="in"):
    """A term compared with a list of values."""

    term: Term
    values: tuple[Term, ...]
    negated: bool = False


class InRange(_Node, frozen=True, tag="between"):
    """A term between two others, both included."""

    term: Term
    low: Term
    high: Term
    negated: bool = False


class LikePattern(_Node, frozen=True, tag="like"):
    r"""A text compared with a pattern of ``%`` and ``_``, in which ``\`` escapes both and itself."""

    term: Term
    pattern: str
    negated: bool = False


class IsMissing(_Node, frozen=True, tag="missing"):
    """A term without a value, or with one if negated."""

    term: Term
    negated: bool = False


class IsYes(_Node, frozen=True, tag="yes"):
    """A term of yes or no, as a condition."""

    term: Term


class FunctionName(StrEnum):
    """A function that is a condition."""

    IN_AUDIENCE = "in_audience"
    JOINED = "joined"
    ACCEPTED = "accepted"
    BOUNCED = "bounced"
    REPLIED = "replied"
    UNSUBSCRIBED = "unsubscribed"
    MAILED = "mailed"
    EVENT = "event"


class FunctionCall(_Node, frozen=True, tag="call"):
    """A function about the past of the recipient.

    ``name``: an audience, a step or an event. ``within_ms``: length of the past that counts; None: all of it.
    ``where``: a condition on the fields of the event.
    """

    function: FunctionName
    name: str | None = None
    within_ms: int | None = None
    where: Clause | None = None


class AllOf(_Node, frozen=True, tag="and"):
    """True if every part is true."""

    parts: tuple[Clause, ...]


class AnyOf(_Node, frozen=True, tag="or"):
    """True if a part is true."""

    parts: tuple[Clause, ...]


class Negation(_Node, frozen=True, tag="not"):
    """True if its part is false."""

    part: Clause


Constant = TextLiteral | NumberLiteral | YesNoLiteral | DateLiteral
Term = (
    MergeField
    | RecipientColumn
    | TextLiteral
    | NumberLiteral
    | YesNoLiteral
    | DateLiteral
    | Conversion
    | LowerCase
    | RecipientDomain
    | RecipientProvider
    | CurrentTime
    | ShiftedDate
)
Clause = Comparison | OneOf | InRange | LikePattern | IsMissing | IsYes | FunctionCall | AllOf | AnyOf | Negation
Node = Term | Clause


class RecipientCondition(msgspec.Struct, frozen=True):
    """A condition on a recipient: its text, and its tree."""

    text: str
    root: Clause

    @property
    def fields(self) -> dict[str, FieldType]:
        """Merge fields of the recipient that it names, with their types."""
        return _fields(self.root)

    @property
    def functions(self) -> frozenset[str]:
        """Names of the functions about the past that it calls."""
        return frozenset(call.function.value for call in self.calls())

    def calls(self, function: FunctionName | None = None) -> list[FunctionCall]:
        """Return the calls of a function, or of all functions about the past."""
        calls = [node for node in walk(self.root) if isinstance(node, FunctionCall)]
        return [call for call in calls if function is None or call.function is function]


class RecipientDate(msgspec.Struct, frozen=True):
    """A date of a recipient, such as ``date(trial_ends) - 2d``: its text, and its tree."""

    text: str
    root: Term

    @property
    def fields(self) -> dict[str, FieldType]:
        """Merge fields of the recipient that it names, with their types."""
        return _fields(self.root)


def _fields(root: Node) -> dict[str, FieldType]:
    return {node.name: node.type for node in walk(root, events=False) if isinstance(node, MergeField)}


def type_of(term: Term) -> FieldType:
    """Return the type of a term's value."""
    match term:
        case MergeField():
            return term.type
        case Conversion():
            return term.to
        case NumberLiteral():
            return FieldType.NUMBER
        case YesNoLiteral():
            return FieldType.YES_NO
        case DateLiteral() | CurrentTime() | ShiftedDate():
            return FieldType.DATE
        case TextLiteral() | LowerCase() | RecipientColumn() | RecipientDomain() | RecipientProvider():
            return FieldType.TEXT


def walk(node: Node, *, events: bool = True) -> Iterator[Node]:
    """Yield a node and all nodes below it. ``events``: also those of conditions on events."""
    yield node
    for child in children(node):
        if events or not isinstance(node, FunctionCall):
            yield from walk(child, events=events)


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes of which a node consists, in the order of the text."""
    match node:
        case AllOf() | AnyOf():
            return node.parts
        case Negation():
            return (node.part,)
        case Comparison():
            return node.left, node.right
        case OneOf():
            return node.term, *node.values
        case InRange():
            return node.term, node.low, node.high
        case FunctionCall():
            return () if node.where is None else (node.where,)
        case Conversion() | LowerCase() | ShiftedDate() | LikePattern() | IsMissing() | IsYes():
            return (node.term,)
        case _:
            return ()


def to_json(condition: RecipientCondition | RecipientDate) -> dict[str, Any]:
    """Return a condition or a date as a JSON object, for the store."""
    return cast("dict[str, Any]", msgspec.to_builtins(condition))


def from_json(value: object) -> RecipientCondition:
    """Return the condition that `to_json` made a JSON object of.

    Raises:
        DataError: The object is not a condition of this version.
    """
    return _from_json(value, RecipientCondition)


def date_from_json(value: object) -> RecipientDate:
    """Return the date that `to_json` made a JSON object of.

    Raises:
        DataError: The object is not a date of this version.
    """
    return _from_json(value, RecipientDate)


_Stored = TypeVar("_Stored", RecipientCondition, RecipientDate)


def _from_json(value: object, kind: type[_Stored]) -> _Stored:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise DataError(
            f"the stored condition is not valid: {error}", remedy="Apply its campaign again: `postroad campaign apply`."
        ) from None
