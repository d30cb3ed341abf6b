"""Parses conditions. sqlglot is imported when the first one is parsed, because that takes half a second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from postroad.field_types import FieldType
from postroad.segment.errors import ConditionError
from postroad.segment.tree import RecipientCondition, RecipientDate


def parse(text: str, fields: Mapping[str, FieldType]) -> RecipientCondition:
    """Parse a condition on a recipient.

    Args:
        text: The condition, such as ``plan = 'trial' and number(seats) >= 5``.
        fields: The known merge fields, with their types. ``address`` and ``time_zone`` are always known.

    Returns:
        The condition.

    Raises:
        ConditionError: It is not a condition, or names something that does not exist. The error has the column.
    """
    from postroad.segment.translate import ClauseTranslator, parse_expression  # noqa: PLC0415

    with _bounded_nesting():
        return RecipientCondition(text, ClauseTranslator(fields).clause(parse_expression(text)))


def parse_date(text: str, fields: Mapping[str, FieldType]) -> RecipientDate:
    """Parse a date of a recipient, such as ``date(trial_ends) - 2d``.

    Args:
        text: The date.
        fields: The known merge fields, with their types.

    Returns:
        The date.

    Raises:
        ConditionError: It is not a date, or names something that does not exist. The error has the column.
    """
    from postroad.segment.translate import TermTranslator, parse_expression  # noqa: PLC0415

    with _bounded_nesting():
        node = parse_expression(text)
        terms = TermTranslator(fields)
        return RecipientDate(text, terms.require(node, terms.term(node), FieldType.DATE))


@contextmanager
def _bounded_nesting() -> Iterator[None]:
    """Raise ConditionError for a chain such as ``now() + 1d + 1d + …`` that is too long to translate."""
    try:
        yield
    except RecursionError:
        raise ConditionError("the condition is nested too deeply", 1, remedy="Write it with less nesting.") from None
