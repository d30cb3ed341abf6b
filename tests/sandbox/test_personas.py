"""Personas: the mapping of domains, their faults, and recovery from them."""

from __future__ import annotations

from collections import Counter

import pytest

from postroad.errors import ConfigError
from postroad.sandbox import PersonaMap, RulePhase, Sandbox, SandboxConfig, known_personas, load_config, parse_shares
from postroad.sandbox.replies import provider_replies
from tests.kit.clock import SleepingClock
from tests.sandbox.client import Wire
from tests.sandbox.conftest import Bench

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


@pytest.mark.parametrize("name", known_personas())
def test_a_persona_uses_replies_of_its_provider(name: str) -> None:
    persona = known_personas()[name]
    for habit in persona.habits:
        reply = provider_replies()[habit.rule.fault.reply]
        assert habit.rule.phase in (RulePhase.RCPT, RulePhase.DOT)
        assert reply.provider in ({"any", "postfix"} if name == "greylist" else {persona.provider})
        assert habit.source.startswith("https://")
        guessed = habit.rule.share < 1.0 or habit.rule.first_ms is not None
        assert habit.note or not guessed, "a number that nobody publishes says so"


def test_a_domain_has_one_persona_by_its_share_and_keeps_it() -> None:
    cast = PersonaMap({"gmail": 0.6, "outlook": 0.3})
    domains = [f"company{n}.example" for n in range(5_000)]
    found = Counter(cast.persona_of(domain) for domain in domains)
    assert found["gmail"] == pytest.approx(3_000, abs=150)
    assert found["outlook"] == pytest.approx(1_500, abs=150)
    again = PersonaMap({"gmail": 0.6, "outlook": 0.3})
    assert all(cast.persona_of(domain) == again.persona_of(domain.upper()) for domain in domains)


def test_a_providers_own_domains_are_its_own_whatever_its_share() -> None:
    cast = PersonaMap({"gmail": 0.0, "outlook": 1.0})
    assert cast.persona_of("gmail.com") == "gmail"
    assert cast.provider_of("GoogleMail.com") == "google"
    assert cast.persona_of("company.example") == "outlook"
    assert PersonaMap({"gmail": 0.0}).provider_of("company.example") is None


def test_shares_are_read_with_and_without_a_number() -> None:
    assert parse_shares("gmail=0.6, outlook=0.3,yahoo") == {"gmail": 0.6, "outlook": 0.3, "yahoo": 0.0}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hooli=0.5", "no persona 'hooli'"),
        ("", "no persona ''"),
        ("gmail=lots", "is not a share"),
        ("gmail=-0.1", "must be between 0 and 1"),
        ("gmail=nan", "must be between 0 and 1"),
        ("gmail=0.7,yahoo=0.7", "is 1.4, which is more"),
        ("gmail=0.1,gmail=0.2", "twice"),
    ],
)
def test_what_is_no_share_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_shares(text)


def test_personas_stand_in_the_configuration_file(bench: Bench) -> None:
    path = bench.directory.parent / "sandbox.toml"
    path.write_text('directory = "kept"\nrequire_authentication = true\npersonas = {gmail = 0.5}\n')
    assert load_config(path).personas == {"gmail": 0.5}
    path.write_text('directory = "kept"\npersonas = {hooli = 0.5}\n')
    with pytest.raises(ConfigError, match="no persona 'hooli'"):
        load_config(path)


async def taken_by(bench: Bench, sandbox: Sandbox, domain: str) -> str:
    """Return a recipient of a persona that causes no permanent fault."""
    for number in range(100):
        wire = await bench.hello(sandbox)
        try:
            recipient = f"reader{number}@{domain}"
            if (await wire.envelope(recipient=recipient)).startswith("250"):
                assert (await wire.ask("DATA")).startswith("354")
                wire.send(b"Subject: hi\r\n\r\nhello\r\n.\r\n")
                if (await wire.reply()).startswith("250"):
                    return recipient
        finally:
            wire.writer.transport.abort()
    raise AssertionError("nobody is there")


async def ask_for(wire: Wire, recipient: str) -> str:
    """Return the reply to RCPT in a transaction of its own."""
    reply = await wire.envelope(recipient=recipient)
    if not reply.startswith("421"):
        await wire.ask("RSET")
    return reply


async def test_yahoo_takes_twenty_messages_in_a_connection(bench: Bench) -> None:
    sandbox = await bench.sandbox(personas={"yahoo": 0.0})
    wire = await bench.hello(sandbox)
    for _ in range(20):
        assert (await ask_for(wire, "ann@yahoo.com")).startswith("250")
        assert (await ask_for(wire, "ann@elsewhere.example")).startswith("250")
    assert (await ask_for(wire, "ann@yahoo.com")).startswith("421 Max message per connection reached")
    assert await wire.rest() == b""
    assert (await ask_for(await bench.hello(sandbox), "ann@yahoo.com")).startswith("250")


async def test_yahoo_defers_a_sender_that_is_too_fast_for_four_hours(bench: Bench, sleeper: SleepingClock) -> None:
    sandbox = await bench.sandbox(personas={"yahoo": 0.0}, clock=sleeper, idle_timeout_ms=10**9)
    for _ in range(15):
        wire = await bench.hello(sandbox)
        for _ in range(20):
            assert (await ask_for(wire, "ann@yahoo.com")).startswith("250")
    refused = "421 4.7.0 [TSS04] Messages from 127.0.0.1 temporarily deferred"
    assert (await ask_for(await bench.hello(sandbox), "bob@yahoo.com")).startswith(refused)
    sleeper.advance(4 * HOUR_MS - 1)
    assert (await ask_for(await bench.hello(sandbox), "bob@yahoo.com")).startswith(refused)
    other = await bench.hello(sandbox)
    assert (await other.ask("MAIL FROM:<x@another.test>")).startswith("250")
    assert (await other.ask("RCPT TO:<bob@yahoo.com>")).startswith("250"), "another sender is not held for it"
    sleeper.advance(1)
    assert (await ask_for(await bench.hello(sandbox), "bob@yahoo.com")).startswith("250")


async def test_gmail_rate_limits_at_the_dot_and_takes_mail_again_later(bench: Bench, sleeper: SleepingClock) -> None:
    sandbox = await bench.sandbox(personas={"gmail": 0.0}, clock=sleeper, idle_timeout_ms=10**9, keep="ledger")
    recipient = await taken_by(bench, sandbox, "gmail.com")
    wire = await bench.hello(sandbox)
    for _ in range(499):
        assert (await wire.deliver(recipient=recipient)).startswith("250")
    assert (await wire.deliver(recipient=recipient)).startswith("421-4.7.28 [127.0.0.1      15] Our system")
    sleeper.advance(30 * MINUTE_MS)
    assert (await (await bench.hello(sandbox)).deliver(recipient=recipient)).startswith("250")


async def test_gmail_counts_the_connections_that_talk_to_it(bench: Bench) -> None:
    sandbox = await bench.sandbox(personas={"gmail": 0.0})
    recipient = await taken_by(bench, sandbox, "gmail.com")
    others = [await bench.hello(sandbox) for _ in range(10)]
    for wire in others:
        assert (await ask_for(wire, recipient)).startswith("250")
    assert (await ask_for(await bench.hello(sandbox), recipient)).startswith("421 4.4.5 Server busy")
    assert (await ask_for(others[0], "ann@elsewhere.example")).startswith("250")
    assert (await ask_for(await bench.hello(sandbox), recipient)).startswith("250"), "one of ten has turned away"


async def test_outlook_limits_a_sender_by_the_hour(bench: Bench, sleeper: SleepingClock) -> None:
    sandbox = await bench.sandbox(personas={"outlook": 0.0}, clock=sleeper, idle_timeout_ms=10**9)
    recipient = await taken_by(bench, sandbox, "outlook.com")
    wire = await bench.hello(sandbox)
    replies = [await ask_for(wire, recipient) for _ in range(200)]
    assert replies[198].startswith("250")
    assert replies[199].startswith("451 4.7.650 The mail server [127.0.0.1] has been temporarily rate limited")
    sleeper.advance(30 * MINUTE_MS)
    assert (await ask_for(wire, recipient)).startswith("250")


async def test_who_does_not_exist_is_the_same_every_time(bench: Bench) -> None:
    sandbox = await bench.sandbox(personas={"office365": 1.0})
    wire = await bench.hello(sandbox)

    async def unknown() -> set[int]:
        replies = [await ask_for(wire, f"reader{n}@company.example") for n in range(140)]
        assert {reply[:9] for reply in replies} == {"250 2.1.5", "550 5.4.1"}
        return {n for n, reply in enumerate(replies) if reply.startswith("550")}

    first = await unknown()
    assert 1 <= len(first) <= 10
    assert await unknown() == first


async def test_a_greylisting_host_remembers_the_triplet(bench: Bench, sleeper: SleepingClock) -> None:
    sandbox = await bench.sandbox(personas={"greylist": 1.0}, clock=sleeper, idle_timeout_ms=10**9)
    wire = await bench.hello(sandbox)
    assert await ask_for(wire, "bob@to.example") == "451 4.7.1 Greylisting in action, please come back later"
    sleeper.advance(5 * MINUTE_MS - 1)
    assert (await ask_for(wire, "bob@to.example")).startswith("451")
    sleeper.advance(1)
    assert (await ask_for(wire, "bob@to.example")).startswith("250")
    assert (await ask_for(wire, "eve@to.example")).startswith("451"), "another recipient begins anew"
    sleeper.advance(10 * HOUR_MS)
    assert (await ask_for(wire, "bob@to.example")).startswith("250"), "it is remembered"
    assert (await wire.ask("MAIL FROM:<other@from.test>")).startswith("250")
    assert (await wire.ask("RCPT TO:<bob@to.example>")).startswith("451"), "another sender begins anew"


UNSIGNED = b"From: Ann <ann@news.from.test>\r\nSubject: hi\r\n\r\nhello\r\n"
SIGNED = b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n\td=from.test; s=a; bh=x; b=y\r\n" + UNSIGNED
ELSEWHERE = SIGNED.replace(b"d=from.test", b"d=relay.example").replace(b"news.from.test", b"author.example")


@pytest.mark.parametrize(
    ("persona", "domain", "content", "reply"),
    [
        ("gmail", "gmail.com", UNSIGNED, "550-5.7.26 This mail has been blocked because the sender is unauthenticated"),
        ("gmail", "gmail.com", ELSEWHERE, "550-5.7.26 Unauthenticated email from from.test is not accepted"),
        ("gmail", "gmail.com", SIGNED, "250"),
        ("outlook", "outlook.com", UNSIGNED, "550 5.7.515 Access denied, sending domain from.test"),
        ("outlook", "outlook.com", ELSEWHERE, "550 5.7.515 Access denied"),
        ("outlook", "outlook.com", SIGNED, "250"),
        ("yahoo", "yahoo.com", UNSIGNED, "550-5.7.9 This mail has been blocked because the sender is unauthenticated"),
        ("yahoo", "yahoo.com", SIGNED, "250"),
    ],
)
async def test_unauthenticated_mail_is_rejected_if_configured(
    bench: Bench, persona: str, domain: str, content: bytes, reply: str
) -> None:
    easy = await bench.sandbox(personas={persona: 0.0})
    recipient = await taken_by(bench, easy, domain)
    assert (await (await bench.hello(easy)).deliver(content, recipient)).startswith("250")
    config = SandboxConfig(
        directory=str(bench.directory / "strict"), personas={persona: 0.0}, require_authentication=True
    )
    async with Sandbox(config) as strict, Wire(strict.host, strict.port) as wire:
        await wire.greeted()
        assert (await wire.deliver(content, recipient)).startswith(reply)


async def test_rules_and_tags_come_before_a_persona(bench: Bench) -> None:
    sandbox = await bench.sandbox(personas={"greylist": 1.0})
    wire = await bench.hello(sandbox)
    assert (await ask_for(wire, "bob+550-5.1.1@to.example")).startswith("550 5.1.1")
