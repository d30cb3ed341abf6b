"""A sender stops everywhere on the word of several receivers, and not of one."""

from __future__ import annotations

from postroad.delivery.refusals import INDEPENDENT_RECEIVERS, WINDOW_MS, AuthenticationRefusals

SENDER = "ada@example.com"


def test_one_domain_never_stops_a_sender() -> None:
    refusals = AuthenticationRefusals()
    assert not any(refusals.add(SENDER, "One.example", at) for at in range(1_000))


def test_several_domains_within_the_window_do() -> None:
    refusals = AuthenticationRefusals()
    said = [refusals.add(SENDER, f"d{number}.example", number) for number in range(INDEPENDENT_RECEIVERS)]
    assert said == [False] * (INDEPENDENT_RECEIVERS - 1) + [True]


def test_what_was_said_long_ago_does_not_count() -> None:
    refusals = AuthenticationRefusals()
    assert not any(refusals.add(SENDER, f"d{n}.example", n * WINDOW_MS) for n in range(2 * INDEPENDENT_RECEIVERS))


def test_senders_are_counted_apart() -> None:
    refusals = AuthenticationRefusals()
    assert not any(refusals.add(f"s{n}@example.com", f"d{n}.example", n) for n in range(2 * INDEPENDENT_RECEIVERS))
