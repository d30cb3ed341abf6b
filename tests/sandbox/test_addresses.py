"""Faults in recipients' addresses, and the table that documents them."""

from __future__ import annotations

import re

import pytest

from postroad.sandbox import ConnectionEnding, Fault, RulePhase, addresses, provider_replies
from postroad.sandbox.addresses import rule_of_tag, tag_of
from tests.sandbox.conftest import Bench


@pytest.mark.parametrize(
    ("address", "tag"),
    [
        ("ada@to.test", ""),
        ("ada+bounce@to.test", "bounce"),
        ("ada+list+BOUNCE@to.test", "bounce"),
        ("ada@to+bounce.test", ""),
        ("postmaster", ""),
    ],
)
def test_the_tag_follows_the_last_plus(address: str, tag: str) -> None:
    assert tag_of(address) == tag


@pytest.mark.parametrize(
    ("tag", "phase", "fault"),
    [
        ("550-5.1.1", RulePhase.RCPT, Fault(reply="550 5.1.1")),
        ("451", RulePhase.RCPT, Fault(reply="451")),
        ("552-5.2.2-at-dot", RulePhase.DOT, Fault(reply="552 5.2.2")),
        ("421-at-data", RulePhase.DATA, Fault(reply="421")),
        ("bounce", RulePhase.RCPT, Fault(reply="gmail-no-such-user")),
        ("gmail-unauthenticated", RulePhase.DOT, Fault(reply="gmail-unauthenticated")),
        ("yahoo-deferred", RulePhase.RCPT, Fault(reply="yahoo-deferred")),
        ("gmail-unauthenticated-at-rcpt", RulePhase.RCPT, Fault(reply="gmail-unauthenticated")),
        ("slow-2000ms", RulePhase.DOT, Fault(delay_ms=2000)),
        ("slow-5ms-at-rcpt", RulePhase.RCPT, Fault(delay_ms=5)),
        ("trickle-50ms", RulePhase.DOT, Fault(byte_delay_ms=50)),
        ("hang-at-data", RulePhase.DATA, Fault(ending=ConnectionEnding.HANG)),
        ("drop", RulePhase.RCPT, Fault(ending=ConnectionEnding.DROP)),
        ("drop-after-dot", RulePhase.DOT, Fault(ending=ConnectionEnding.DROP)),
        ("drop-after-dot-kept", RulePhase.DOT, Fault(ending=ConnectionEnding.DROP, keep=True)),
    ],
)
def test_a_tag_asks_for_a_fault(tag: str, phase: RulePhase, fault: Fault) -> None:
    rule = rule_of_tag(tag)
    assert rule is not None
    assert (rule.phase, rule.fault) == (phase, fault)


@pytest.mark.parametrize(
    "tag",
    [
        "",
        "news",
        "250",
        "650",
        "550-2.0.0",
        "slow",
        "slow-ms",
        "drop-after-dot-kept-at-rcpt",
        "bounce-at-mail",
    ],
)
def test_any_other_tag_is_an_ordinary_address(tag: str) -> None:
    assert rule_of_tag(tag) is None


def test_every_providers_reply_is_a_tag() -> None:
    for name, reply in provider_replies().items():
        rule = rule_of_tag(name)
        assert rule is not None, name
        assert rule.fault.reply == name
        if reply.phase in ("rcpt", "data", "dot"):
            assert rule.phase == reply.phase


def test_the_table_is_true() -> None:
    """Every tag in the table works at its phase, and every tag is in the table."""
    rows = re.findall(r"^(``.+?) +(rcpt|dot|its own) +", addresses.__doc__ or "", re.MULTILINE)
    assert len(rows) == 12
    documented = {tag: phase for tags, phase in rows for tag in re.findall("``(.+?)``", tags)}
    for tag, phase in documented.items():
        rule = rule_of_tag(tag)
        assert rule is not None, tag
        assert phase in ("its own", rule.phase)
    assert set(addresses.FAULTS_BY_WORD) <= set(documented)


async def test_greylisting_by_address_ends_after_its_attempts(bench: Bench) -> None:
    wire = await bench.hello(await bench.sandbox())
    assert (await wire.ask("MAIL FROM:<a@b.test>")).startswith("250")
    codes = [(await wire.ask("RCPT TO:<ada+greylist-2@to.test>"))[:9] for _ in range(3)]
    assert codes == ["451 4.7.1", "451 4.7.1", "250 2.1.5"]
    assert (await wire.ask("RCPT TO:<eve+greylist-2@to.test>")).startswith("451 4.7.1")


async def test_a_tag_concerns_only_the_recipient_that_carries_it(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    wire = await bench.hello(sandbox)
    assert (await wire.envelope(recipient="ada+550-5.1.1@to.test")).startswith("550 5.1.1 ")
    assert (await wire.ask("RCPT TO:<bob+news@to.test>")).startswith("250")
    assert (await wire.ask("DATA")).startswith("354")
    wire.send(b"x\r\n.\r\n")
    assert (await wire.reply()).startswith("250")
    assert [entry.recipient for entry in sandbox.accepted()] == ["bob+news@to.test"]


async def test_tags_may_be_switched_off(bench: Bench) -> None:
    wire = await bench.hello(await bench.sandbox(address_tags=False))
    assert (await wire.deliver(recipient="ada+bounce@to.test")).startswith("250")
