from __future__ import annotations

from random import Random

import msgspec
import pytest

from postroad.queue import (
    Cancel,
    ClaimedJob,
    Dead,
    Defer,
    Lane,
    Rate,
    Release,
    Retry,
    RetryPolicy,
    Uncertain,
)
from postroad.queue.codec import MAX_TEXT, SettleCommand, to_command
from postroad.queue.types import Undone

POLICY = RetryPolicy()


def ordered(verdict: Undone, attempt: int = 1) -> SettleCommand:
    return to_command(ClaimedJob("1", 7, attempt, 1, b"", 0, "a"), verdict, POLICY, Random(1))


@pytest.mark.parametrize(
    ("verdict", "attempt", "wanted"),
    [
        (Retry(cause="c", error="e"), 1, SettleCommand("1", 7, "retry", 0, 5_000, "c", "e")),
        (Retry(cause="c", error="e"), 2, SettleCommand("1", 7, "retry", 0, 10_000, "c", "e")),
        (Retry(cause="c", error="e", at_ms=99), 2, SettleCommand("1", 7, "retry", 99, 0, "c", "e")),
        (Retry(cause="c", error="e"), 3, SettleCommand("1", 7, "dead", 0, 0, "c", "e")),
        (Retry(cause="c", error="e", at_ms=99), 3, SettleCommand("1", 7, "dead", 0, 0, "c", "e")),
        (Defer(at_ms=99, cause="c", error="e"), 9, SettleCommand("1", 7, "defer", 99, 0, "c", "e")),
        (Defer(at_ms=99, cause="c", untried=True), 9, SettleCommand("1", 7, "delay", 99, 0, "c")),
        (Dead(cause="c", error="e"), 1, SettleCommand("1", 7, "dead", 0, 0, "c", "e")),
        (Uncertain(cause="c"), 1, SettleCommand("1", 7, "uncertain", 0, 0, "c")),
        (Cancel(cause="c"), 1, SettleCommand("1", 7, "cancelled", 0, 0, "c")),
        (Release(), 1, SettleCommand("1", 7, "release")),
    ],
)
def test_each_verdict_becomes_its_settle_command(verdict: Undone, attempt: int, wanted: SettleCommand) -> None:
    assert ordered(verdict, attempt) == wanted


def test_the_third_delay_repeats() -> None:
    assert [POLICY.delay_ms(attempt, Random(1)) for attempt in (1, 2, 3, 4, 9)] == [
        5000,
        10_000,
        20_000,
        20_000,
        20_000,
    ]


def test_an_error_of_any_length_and_any_bytes_can_be_settled() -> None:
    reply = (b"550 \xff" + b"x" * 9999).decode("utf-8", "surrogateescape")
    command = ordered(Dead(cause=reply, error=reply))
    assert len(command.error) == MAX_TEXT
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(command))


@pytest.mark.parametrize("policy", [{"attempts": 0}, {"delays_ms": ()}, {"jitter": 1.0}])
def test_an_invalid_retry_policy_is_rejected(policy: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one attempt"):
        RetryPolicy(**policy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rate", [{"count": 0, "per_ms": 1}, {"count": 1, "per_ms": 0}, {"count": 1, "per_ms": 1, "burst": 0}]
)
def test_a_rate_that_admits_nothing_is_rejected(rate: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="to stop, pause"):
        Rate(**rate)


@pytest.mark.parametrize("lane", [{"gates": ("g", "g")}, {"gates": tuple("abcdefghijk")}, {"gates": (), "weight": 0.0}])
def test_an_invalid_lane_is_rejected(lane: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="lane a"):
        Lane(name="a", **lane)  # type: ignore[arg-type]
