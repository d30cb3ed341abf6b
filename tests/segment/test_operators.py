"""Two comparisons that follow each other are an error that says what to write."""

from __future__ import annotations

import pytest

from postroad.field_types import FieldType
from postroad.segment.errors import MAX_CONDITION_CHARACTERS, ConditionError
from postroad.segment.parse import parse

FIELDS = {"plan": FieldType.TEXT, "seats": FieldType.TEXT}


@pytest.mark.parametrize(
    ("text", "column", "message", "remedy"),
    [
        ("plan == 'a'", 6, "'==' is not a comparison", "Write =, as in"),
        ("plan = = 'a'", 6, "'==' is not a comparison", "Write =, as in"),
        ("number(seats) <== 3", 15, "'<==' is not a comparison", "Write =, <>,"),
        ("plan <> = 'a'", 6, "'<>=' is not a comparison", "Write =, <>,"),
    ],
)
def test_two_comparisons_in_a_row_are_refused(text: str, column: int, message: str, remedy: str) -> None:
    with pytest.raises(ConditionError, match=message) as caught:
        parse(text, FIELDS)
    assert caught.value.column == column
    assert (caught.value.remedy or "").startswith(remedy)


def test_one_bound_holds_for_the_length_of_every_condition() -> None:
    text = "plan = 'a'"
    parse(text.ljust(MAX_CONDITION_CHARACTERS), FIELDS)
    with pytest.raises(ConditionError, match="4,000 is the most"):
        parse(text.ljust(MAX_CONDITION_CHARACTERS + 1), FIELDS)
