"""A touch is named by its id, which is a number, or by an address."""

from __future__ import annotations

import pytest

from postroad.delivery.job import parse_touch_id
from postroad.errors import UsageError


@pytest.mark.parametrize("word", ["nonsense", "-1", "1.5", "\u0661", "9" * 40, ""])
def test_what_is_no_touch_id_is_said(word: str) -> None:
    with pytest.raises(UsageError, match=r"is not a touch id \(a number\) or an email address"):
        parse_touch_id(word)


def test_an_id_is_a_number() -> None:
    assert parse_touch_id("17") == 17
