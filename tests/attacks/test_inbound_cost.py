"""Reading a mail from strangers takes time and memory in proportion to its size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from postroad.bounce import parse
from postroad.bounce.intake import IntakeResult
from postroad.bounce.mail_worker import parse_stored
from postroad.bounce.match import addresses_of
from postroad.bounce.process import classify_mail
from postroad.bounce.readers import MailReader
from postroad.bounce.report import Envelope, MailKind
from postroad.bounce.sources.listener import listen
from postroad.bounce.sources.recipient_policy import RecipientPolicy
from postroad.bounce.truncation import truncate
from postroad.clock import SystemClock
from postroad.mail.token import TokenSigner
from postroad.settings import InboundSettings
from tests.attacks.limits import cost_ratio, run_limited
from tests.attacks.mails import HOSTILE
from tests.bounce.conftest import *  # noqa: F403 - its fixtures
from tests.bounce.ledger import DOMAIN
from tests.bounce.sources.wire import connected

SMALL, LARGE = 6_000, 60_000


@pytest.fixture(scope="module")
def reader() -> Iterator[MailReader]:
    with MailReader() as reader:
        yield reader


@pytest.mark.parametrize("name", HOSTILE)
def test_reading_costs_in_proportion_to_the_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # flufl.bounce is not ours, and has its limits in the child: it is measured below.
    monkeypatch.setattr(parse, "find_by_flufl", lambda _: [])
    build = HOSTILE[name]
    judge_one(build(SMALL))
    assert cost_ratio(judge_one, build(SMALL), build(LARGE)) < 30


def judge_one(raw: bytes) -> object:
    """All that is done with a mail outside the transaction: in the child, and then in the worker."""
    report = parse_stored(raw, Envelope())
    return classify_mail(report, TokenSigner(SecretStr("a key for tests"))), addresses_of(report)


def read_some(size: int, first: int, step: int) -> int:
    builds = list(HOSTILE.values())[first::step]
    for build in builds:
        judge_one(build(size))
    return len(builds)


@pytest.mark.parametrize("first", range(4))
def test_all_hostile_mails_of_a_megabyte_are_read_within_bounds(first: int) -> None:
    read = run_limited("tests.attacks.test_inbound_cost:read_some", 1 << 20, first, 4, cpu_s=15, memory_mib=256)
    assert read.error is None
    assert read.value >= len(HOSTILE) // 4


def test_every_hostile_mail_is_read_by_the_child(reader: MailReader) -> None:
    reports = {name: reader(build(LARGE), Envelope()) for name, build in HOSTILE.items()}
    assert {name: report.format for name, report in reports.items() if report.kind is MailKind.UNREADABLE} == {}
    assert max(len(report.recipients) for report in reports.values()) == 100


def test_five_hundred_failed_recipients_take_a_moment() -> None:
    raw = HOSTILE["failed recipients that the words name"](15_000)
    assert raw.count(b"@example.net") > 1_000
    run_limited("tests.attacks.test_inbound_cost:read_one", raw, cpu_s=1.5)


def read_one(raw: bytes) -> str:
    return parse_stored(raw, Envelope()).format


def test_to_keep_a_mail_of_many_megabytes_costs_in_proportion() -> None:
    raw = HOSTILE["nested parts"](1 << 20) + b"x" * (8 << 20)
    run_limited("tests.attacks.test_inbound_cost:keep_one", raw, cpu_s=3)


def keep_one(raw: bytes) -> int:
    return len(truncate(raw))


COMMANDS = ["(" * 900, "<" * 900, "<" + "@" * 900, '"' * 900, "<@a," * 220, "a" * 900 + "@b.c", "<" + "(a" * 400 + ">"]

COMMANDS += [
    '<"' + "\\" * 900,
    "=?a?q?" * 150,
    "<" + "a." * 440 + "@b>",
    "<a@" + "[" * 900,
    " " * 900 + "<",
    ":;" * 450,
]


def parse_commands() -> list[str]:
    return asyncio.run(give_commands())


async def give_commands() -> list[str]:
    async def refuse(raw: bytes, envelope: Envelope) -> IntakeResult:
        raise AssertionError("no mail is sent")

    policy = RecipientPolicy(TokenSigner(SecretStr("a key for tests")), domains=[DOMAIN])
    async with (
        listen(
            InboundSettings(smtp="127.0.0.1:0"),
            host_name="in.example.com",
            submit=refuse,
            recipient_policy=policy,
            clock=SystemClock(),
        ) as listening,
        connected(listening.addresses[0]) as wire,
    ):
        replies = []
        for command in COMMANDS:
            replies.append(await wire.say(f"MAIL FROM:{command}"))
            await wire.say("RSET")
        return replies


def test_a_command_of_the_longest_length_is_parsed_in_bounded_time() -> None:
    parsed = run_limited("tests.attacks.test_inbound_cost:parse_commands", cpu_s=2.0)
    assert parsed.error is None
    # None is refused for its length: the parser got each.
    assert {reply[:3] for reply in parsed.value} <= {"250", "501", "553"}
