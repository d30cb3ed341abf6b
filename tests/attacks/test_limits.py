"""The limits of the attack suite hold: what passes them fails the test."""

from __future__ import annotations

import pytest

from tests.attacks.limits import cost_ratio, run_limited


def spin(_: object) -> None:
    while True:
        pass


def allocate(mebibytes: int) -> int:
    return len(bytearray(mebibytes << 20))


def add(left: int, right: int) -> int:
    return left + right


def pairs(length: int) -> int:
    return sum(1 for left in range(length) for right in range(length) if left == right)


def test_a_call_within_its_limits_returns_its_value() -> None:
    assert run_limited("tests.attacks.test_limits:add", 2, 3).value == 5


def test_a_call_without_end_fails() -> None:
    with pytest.raises(AssertionError, match="did not end"):
        run_limited("tests.attacks.test_limits:spin", None, cpu_s=0.2)


def test_memory_over_the_limit_fails() -> None:
    with pytest.raises(AssertionError, match="are allowed"):
        run_limited("tests.attacks.test_limits:allocate", 150, memory_mib=100)


def test_memory_far_over_the_limit_is_refused() -> None:
    assert run_limited("tests.attacks.test_limits:allocate", 4_000, memory_mib=100).error == "MemoryError"


def test_quadratic_cost_is_distinguished_from_linear_cost() -> None:
    assert cost_ratio(lambda n: sum(range(n * 1000)), 100, 1_000) < 25
    assert cost_ratio(pairs, 100, 1_000) > 50
