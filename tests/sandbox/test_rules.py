"""Conditions of rules: patterns, counts, probability, greylisting, rates and limits."""

from __future__ import annotations

import tracemalloc
from random import Random
from typing import Any

import msgspec
import pytest

from postroad.sandbox import Fault, MissingAuth, RulePhase, RuleRate, RuleScope, SandboxRule
from postroad.sandbox.rulebook import RuleBook
from tests.kit.clock import SleepingClock
from tests.kit.waiting import until
from tests.sandbox.conftest import Bench

NO = Fault(reply="450 4.2.1 no")


class Scene(msgspec.Struct):
    connection: int = 1
    ip: str = "192.0.2.1"
    sender: str | None = "ann@from.test"
    transactions: int = 0
    open_connections: int = 1


def book(*rules: SandboxRule, clock: SleepingClock | None = None, seed: int = 7) -> RuleBook:
    return RuleBook(rules, clock=clock or SleepingClock(), rng=Random(seed), address_tags=True)


def at_rcpt(**when: Any) -> SandboxRule:
    return SandboxRule(phase=RulePhase.RCPT, fault=NO, **when)


@pytest.mark.parametrize(
    ("when", "recipient", "applies"),
    [
        ({}, "bob@to.test", True),
        ({"recipient": "bob@*"}, "bob@to.test", True),
        ({"recipient": "BOB@To.test"}, "bob@tO.test", True),
        ({"recipient": "bob"}, "bob@to.test", False),
        ({"local_part": "b?b"}, "bob@to.test", True),
        ({"local_part": "b[!o]b"}, "bob@to.test", False),
        ({"domain": "*.to.test"}, "bob@to.test", False),
        ({"domain": "*.to.test"}, "bob@mail.to.test", True),
        ({"domain": "to.test", "local_part": "ann"}, "bob@to.test", False),
        ({"sender": "ann@*"}, "bob@to.test", True),
        ({"sender": ""}, "bob@to.test", False),
    ],
)
def test_all_patterns_must_fit(when: dict[str, str], recipient: str, applies: bool) -> None:
    verdict = book(at_rcpt(**when)).decide(RulePhase.RCPT, Scene(), (recipient,))
    assert (verdict is not None) is applies


def test_the_null_sender_has_a_pattern_of_its_own() -> None:
    assert book(at_rcpt(sender="")).decide(RulePhase.RCPT, Scene(sender=""), ("bob@to.test",))


def test_the_first_rule_wins_and_address_tags_come_last() -> None:
    rules = book(
        at_rcpt(local_part="ann*"),
        SandboxRule(phase=RulePhase.RCPT, domain="to.test", fault=Fault(reply="550 5.1.1 second")),
    )

    def code(recipient: str) -> int | None:
        verdict = rules.decide(RulePhase.RCPT, Scene(), (recipient,))
        return verdict.reply.code if verdict and verdict.reply else None

    assert [code(f"{who}@to.test") for who in ("ann", "bob", "bob+451")] == [450, 550, 550]
    assert [code(f"{who}@else.test") for who in ("ann", "bob", "bob+451")] == [450, None, 451]


def test_the_recipient_that_a_rule_is_about_is_found_among_many() -> None:
    rules = book(SandboxRule(phase=RulePhase.DOT, domain="b.test", fault=NO))
    verdict = rules.decide(RulePhase.DOT, Scene(), ("x@a.test", "y@b.test"))
    assert verdict is not None
    assert verdict.recipient == "y@b.test"
    assert rules.decide(RulePhase.DOT, Scene(), ("x@a.test",)) is None


def times(rules: RuleBook, count: int, recipient: str = "bob@to.test") -> list[int]:
    """Return the numbers of the attempts to which a rule applies."""
    return [n for n in range(1, count + 1) if rules.decide(RulePhase.RCPT, Scene(), (recipient,))]


def test_every_nth_counts_only_what_matches() -> None:
    rules = book(at_rcpt(every=3, domain="to.test"))
    assert times(rules, 2) == []
    assert times(rules, 5, "bob@else.test") == []
    assert times(rules, 7) == [1, 4, 7]


def test_chance_follows_the_seed_and_its_probability() -> None:
    hits = times(book(at_rcpt(probability=0.25)), 4000)
    assert hits == times(book(at_rcpt(probability=0.25)), 4000)
    assert hits != times(book(at_rcpt(probability=0.25), seed=8), 4000)
    assert 900 < len(hits) < 1100
    assert times(book(at_rcpt(probability=0.0)), 50) == []
    assert len(times(book(at_rcpt(probability=1.0)), 50)) == 50


def test_greylisting_by_count_is_per_recipient() -> None:
    rules = book(at_rcpt(first_attempts=2))
    assert times(rules, 4) == [1, 2]
    assert times(rules, 4, "BOB@to.test") == []
    assert times(rules, 4, "eve@to.test") == [1, 2]


def test_greylisting_by_time_counts_from_the_first_attempt() -> None:
    clock = SleepingClock()
    rules = book(at_rcpt(first_ms=300_000), clock=clock)
    assert times(rules, 3) == [1, 2, 3]
    clock.advance(299_999)
    assert times(rules, 1) == [1]
    clock.advance(1)
    assert times(rules, 3) == []


def test_greylisting_by_both_ends_with_whichever_comes_first() -> None:
    clock = SleepingClock()
    rules = book(at_rcpt(first_ms=1000, first_attempts=2), clock=clock)
    assert times(rules, 4) == [1, 2]
    assert times(rules, 1, "eve@to.test") == [1]
    clock.advance(1000)
    assert times(rules, 1, "eve@to.test") == []


def test_a_rate_counts_admissions_in_any_period() -> None:
    clock = SleepingClock()
    rules = book(at_rcpt(over=RuleRate(count=2, per_ms=1000)), clock=clock)
    assert times(rules, 1) == []
    clock.advance(600)
    assert times(rules, 3) == [2, 3]
    clock.advance(399)
    assert times(rules, 1) == [1]
    clock.advance(1)  # the first one is a second old, the second 400 ms
    assert times(rules, 2) == [2]


def test_a_rate_with_a_rest_restarts_at_zero_after_the_rest() -> None:
    clock = SleepingClock()
    rules = book(at_rcpt(over=RuleRate(count=2, per_ms=1000, rest_ms=5000)), clock=clock)
    assert times(rules, 3) == [3]
    clock.advance(4999)
    assert times(rules, 1) == [1]
    clock.advance(1)
    assert times(rules, 3) == [3]


def test_a_share_selects_the_same_recipients_for_each_reply() -> None:
    everybody = [f"reader{n}@to.test" for n in range(2_000)]

    def hit(reply: str) -> set[str]:
        rules = book(SandboxRule(phase=RulePhase.RCPT, share=0.1, fault=Fault(reply=reply)))
        return {who for who in everybody if rules.decide(RulePhase.RCPT, Scene(), (who,))}

    unknown, full = hit("550 5.1.1"), hit("552 5.2.2")
    assert 150 < len(unknown) < 250
    assert hit("550 5.1.1") == unknown
    assert len(unknown & full) < 50


@pytest.mark.parametrize(
    ("scope", "shares", "does_not_share"),
    [
        (RuleScope.ALL, (Scene(ip="192.0.2.9", connection=9), "x@else.test"), None),
        (RuleScope.CONNECTION, (Scene(ip="192.0.2.9"), "x@else.test"), (Scene(connection=9), "bob@to.test")),
        (RuleScope.IP, (Scene(connection=9), "x@else.test"), (Scene(ip="192.0.2.9"), "bob@to.test")),
        (RuleScope.SENDER, (Scene(ip="192.0.2.9"), "x@else.test"), (Scene(sender="e@from.test"), "bob@to.test")),
        (
            RuleScope.SENDER_DOMAIN,
            (Scene(sender="e@from.test"), "x@else.test"),
            (Scene(sender="e@e.test"), "bob@to.test"),
        ),
        (RuleScope.DOMAIN, (Scene(connection=9), "x@TO.test"), (Scene(), "bob@else.test")),
        (RuleScope.RECIPIENT, (Scene(connection=9), "BOB@to.test"), (Scene(), "x@to.test")),
    ],
)
def test_a_rate_is_shared_by_its_scope(
    scope: RuleScope, shares: tuple[Scene, str], does_not_share: tuple[Scene, str] | None
) -> None:
    rules = book(at_rcpt(over=RuleRate(count=1, per_ms=1000, scope=scope)))
    assert rules.decide(RulePhase.RCPT, Scene(), ("bob@to.test",)) is None
    assert rules.decide(RulePhase.RCPT, shares[0], (shares[1],)) is not None
    if does_not_share:
        assert rules.decide(RulePhase.RCPT, does_not_share[0], (does_not_share[1],)) is None


def test_a_connection_that_is_gone_is_forgotten() -> None:
    rules = book(at_rcpt(over=RuleRate(count=1, per_ms=1000, scope=RuleScope.CONNECTION)))

    def use_and_forget(connections: range) -> int:
        """Return by how many bytes the memory in use grew."""
        before = tracemalloc.get_traced_memory()[0]
        for connection in connections:
            scene = Scene(connection=connection)
            for refused in (False, True):
                assert (rules.decide(RulePhase.RCPT, scene, ("bob@to.test",)) is not None) is refused
            rules.forget(connection)
        return tracemalloc.get_traced_memory()[0] - before

    use_and_forget(range(10))
    tracemalloc.start()
    try:
        assert use_and_forget(range(1000)) < 10_000  # A thousand that are kept are 800,000 bytes.
    finally:
        tracemalloc.stop()
    use_and_forget(range(1000))  # Each is admitted again, as a new one.


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: SandboxRule(phase=RulePhase.MAIL, fault=NO, domain="to.test"), "no recipient is known"),
        (lambda: SandboxRule(phase=RulePhase.CONNECT, fault=NO, first_attempts=1), "no recipient is known"),
        (lambda: SandboxRule(phase=RulePhase.EHLO, fault=NO, sender="a@*"), "no sender is known"),
        (
            lambda: SandboxRule(
                phase=RulePhase.MAIL, fault=NO, over=RuleRate(count=1, per_ms=1, scope=RuleScope.DOMAIN)
            ),
            "no recipient",
        ),
        (lambda: SandboxRule(phase=RulePhase.RCPT, fault=NO, every=0), "every must be 1 or more"),
        (lambda: SandboxRule(phase=RulePhase.RCPT, fault=NO, probability=1.5), "between 0 and 1"),
        (lambda: SandboxRule(phase=RulePhase.RCPT, fault=NO, share=-0.5), "between 0 and 1"),
        (lambda: SandboxRule(phase=RulePhase.MAIL, fault=NO, share=0.5), "no recipient is known"),
        (lambda: SandboxRule(phase=RulePhase.RCPT, fault=NO, lacks=MissingAuth.SIGNATURE), "final dot only"),
        (lambda: SandboxRule(phase=RulePhase.RCPT, fault=Fault(keep=True)), "final dot only"),
        (lambda: Fault(reply="no reply"), "neither a reply"),
        (lambda: Fault(delay_ms=-1), "must not be negative"),
        (lambda: RuleRate(count=1, per_ms=0), "per_ms > 0"),
    ],
)
def test_a_rule_that_can_never_apply_is_refused(make: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


async def test_a_connection_limit_turns_the_next_one_away(bench: Bench) -> None:
    fault = Fault(reply="postfix-too-many-connections")
    sandbox = await bench.sandbox(rules=(SandboxRule(phase=RulePhase.CONNECT, connections_over=2, fault=fault),))
    first = await bench.hello(sandbox)
    await bench.hello(sandbox)
    third = await bench.wire(sandbox)
    assert (await third.rest()) == (
        b"421 4.7.0 mx.sandbox.test Error: too many connections from unknown[127.0.0.1]\r\n"
    )
    assert (await first.ask("QUIT")).startswith("221")
    await first.rest()
    assert sandbox.counters.refused[RulePhase.CONNECT] == 1


async def test_a_message_limit_counts_for_each_connection(bench: Bench) -> None:
    fault = Fault(reply="yahoo-max-messages")
    sandbox = await bench.sandbox(rules=(SandboxRule(phase=RulePhase.MAIL, messages_over=2, fault=fault),))
    for _ in range(2):
        wire = await bench.hello(sandbox)
        assert (await wire.deliver()).startswith("250")
        assert (await wire.deliver()).startswith("250")
        wire.send(b"MAIL FROM:<a@b.test>\r\n")
        assert await wire.rest() == b"421 Max message per connection reached, closing transmission channel\r\n"
    assert len(sandbox.accepted()) == 4


async def test_a_rate_limit_speaks_in_the_providers_words(bench: Bench, sleeper: SleepingClock) -> None:
    rate = RuleRate(count=2, per_ms=60_000, scope=RuleScope.IP)
    rule = SandboxRule(phase=RulePhase.DOT, domain="gmail.test", over=rate, fault=Fault(reply="gmail-unusual-rate"))
    sandbox = await bench.sandbox(clock=sleeper, rules=(rule,))
    wire = await bench.hello(sandbox)
    for _ in range(2):
        assert (await wire.deliver(recipient="bob@gmail.test")).startswith("250")
    refusal = await wire.deliver(recipient="bob@gmail.test")
    assert refusal.startswith("421-4.7.28 [127.0.0.1      15] Our system has detected an unusual rate of\n")
    assert refusal.endswith(" - gsmtp")
    sleeper.advance(60_000)
    assert (await (await bench.hello(sandbox)).deliver(recipient="bob@gmail.test")).startswith("250")


async def test_the_memory_of_a_connection_ends_with_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    forget, forgotten = RuleBook.forget, []

    def noting(rules: RuleBook, connection: int) -> None:
        forgotten.append(connection)
        forget(rules, connection)

    monkeypatch.setattr(RuleBook, "forget", noting)
    rate = RuleRate(count=1, per_ms=60_000, scope=RuleScope.CONNECTION)
    sandbox = await bench.sandbox(rules=(at_rcpt(over=rate),))
    for _ in range(3):
        wire = await bench.hello(sandbox)
        assert (await wire.envelope()).startswith("250")
        assert (await wire.ask("RCPT TO:<bob@to.test>")).startswith("450")
        wire.writer.close()
    await until(lambda: sandbox.counters.open_connections == 0)
    assert sorted(forgotten) == [1, 2, 3]


async def test_new_rules_apply_to_open_sessions_without_old_state(bench: Bench) -> None:
    rule = at_rcpt(first_attempts=1)
    sandbox = await bench.sandbox(rules=(rule,))
    wire = await bench.hello(sandbox)
    for _ in range(2):
        assert (await wire.ask("MAIL FROM:<a@b.test>")).startswith("250")
        assert (await wire.ask("RCPT TO:<bob@to.test>")).startswith("450")
        assert (await wire.ask("RCPT TO:<bob@to.test>")).startswith("250")
        assert (await wire.ask("RSET")).startswith("250")
        sandbox.use([rule])
    assert sandbox.rules == (rule,)
