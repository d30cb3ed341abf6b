"""Durations and rates: parsing and formatting."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroad.settings import RateSetting, parse_duration_ms

DURATIONS = [
    ("500ms", 500),
    ("1s", 1_000),
    ("30 s", 30_000),
    (" 15m ", 900_000),
    ("1.5h", 5_400_000),
    ("2h", 7_200_000),
    ("3d", 259_200_000),
    ("0s", 0),
    ("0.4ms", 0),
    ("9007199254740993ms", 9007199254740993),  # 2^53 + 1: no float is this number
]


@pytest.mark.parametrize(("text", "ms"), DURATIONS)
def test_a_duration_is_parsed_in_milliseconds(text: str, ms: int) -> None:
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "5 weeks", "1h30m", "1,5h", "5S", "1e3s", ".5s", "nan", "inf s", "5s\n5s", "5min"]
)
def test_an_invalid_duration_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write a number and ms, s, m, h or d"):
        parse_duration_ms(text)


def test_a_very_long_duration_is_a_number() -> None:
    assert parse_duration_ms("9" * 400 + "ms") == int("9" * 400)


RATES = [
    ("100/1s", RateSetting(count=100, per_ms=1_000)),
    ("100/s", RateSetting(count=100, per_ms=1_000)),
    ("30/1h", RateSetting(count=30, per_ms=3_600_000)),
    (" 30 / 1 h ", RateSetting(count=30, per_ms=3_600_000)),
    ("1/500ms", RateSetting(count=1, per_ms=500)),
    ("1000/d", RateSetting(count=1_000, per_ms=86_400_000)),
    ("3/0.5s", RateSetting(count=3, per_ms=500)),
]


@pytest.mark.parametrize(("text", "rate"), RATES)
def test_a_rate_is_parsed(text: str, rate: RateSetting) -> None:
    assert RateSetting.parse(text) == rate


@pytest.mark.parametrize(
    "text", ["", "100", "/1s", "0/1s", "-1/1s", "1.5/1s", "a/1s", "1/", "1/0s", "1/week", "1/1s/1s", "²/1s"]
)
def test_an_invalid_rate_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (rate|duration)"):
        RateSetting.parse(text)


@given(count=st.integers(min_value=1), per_ms=st.integers(min_value=1))
@example(count=1, per_ms=9007199254740993)
@example(count=1, per_ms=9007199254740993 * 86_400_000)
@example(count=1, per_ms=86_400_000)
def test_a_rate_round_trips(count: int, per_ms: int) -> None:
    rate = RateSetting(count=count, per_ms=per_ms)
    assert RateSetting.parse(str(rate)) == rate


@given(st.integers(min_value=0), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_whole_number_of_units_is_exact(number: int, unit: str) -> None:
    each = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}[unit]
    assert parse_duration_ms(f"{number}{unit}") == number * each
