"""A sender stops everywhere on the word of several receivers, and not of one."""

from __future__ import annotations

from postroad.delivery.job import SendJob
from postroad.delivery.refusals import INDEPENDENT_RECEIVERS, WINDOW_MS, AuthenticationRefusals, receiver_name

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


def test_domains_with_the_same_mail_hosts_are_one_receiver() -> None:
    refusals = AuthenticationRefusals()
    jobs = [
        SendJob(
            touch_id=n,
            step_id=1,
            address=f"ada@d{n}.example",
            fields={},
            provider="mx.host.example",
            site="mx.host.example",
        )
        for n in range(2 * INDEPENDENT_RECEIVERS)
    ]
    assert not any(refusals.add(SENDER, receiver_name(job), 0) for job in jobs)
    known = SendJob(
        touch_id=9, step_id=1, address="ada@shop.example", fields={}, provider="google", site="x.google.com"
    )
    unknown = SendJob(touch_id=9, step_id=1, address="ada@shop.example", fields={})
    assert (receiver_name(known), receiver_name(unknown)) == ("google", "shop.example")
