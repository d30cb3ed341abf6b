"""Pipelining (RFC 2920): a group is answered in order, and a violation ends the session."""

from __future__ import annotations

from typing import Any

import pytest

from postroad.sandbox import Extension, Fault, RulePhase, SandboxRule
from tests.sandbox.conftest import Bench

ENVELOPE = b"MAIL FROM:<a@from.test>\r\nRCPT TO:<r%d@to.test>\r\nDATA\r\n"
CONTENT = b"Message-ID: <%d@from.test>\r\n\r\nx\r\n.\r\n"
NO_PIPELINING = tuple(extension for extension in Extension if extension is not Extension.PIPELINING)


async def test_a_hundred_messages_with_pipelined_envelopes(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    wire = await bench.hello(sandbox)
    wire.send(ENVELOPE % 0)
    for number in range(100):
        assert [(await wire.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
        wire.send(CONTENT % number + (ENVELOPE % (number + 1) if number < 99 else b"QUIT\r\n"))
        assert (await wire.reply()).startswith("250 2.0.0")
    assert (await wire.reply()).startswith("221")
    assert [entry.message_id for entry in sandbox.accepted()] == [f"<{n}@from.test>" for n in range(100)]
    assert [entry.recipient for entry in sandbox.accepted()] == [f"r{n}@to.test" for n in range(100)]


async def test_a_hundred_transactions_in_one_write_keep_their_order(bench: Bench) -> None:
    wire = await bench.hello(await bench.sandbox())
    group = b"".join(
        b"MAIL FROM:<a@from.test>\r\nRCPT TO:<r%d%s@to.test>\r\nRSET\r\n" % (n, b"+bounce" if n % 3 else b"")
        for n in range(100)
    )
    wire.send(group + b"NOOP\r\n")
    for number in range(100):
        replies = [(await wire.reply())[:3] for _ in range(3)]
        assert replies == ["250", "550" if number % 3 else "250", "250"]
    assert (await wire.reply()).startswith("250 2.0.0")


async def test_data_without_a_recipient_is_rejected_in_a_group(bench: Bench) -> None:
    wire = await bench.hello(await bench.sandbox())
    wire.send(b"MAIL FROM:<a@from.test>\r\nRCPT TO:<b+bounce@to.test>\r\nDATA\r\n")
    assert [(await wire.reply())[:3] for _ in range(3)] == ["250", "550", "554"]
    assert (await wire.ask("RSET")).startswith("250")


@pytest.mark.parametrize(
    ("settings", "group", "replies"),
    [
        # Commands that must be the last of a group: RFC 2920 §3.1.
        ({}, b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n", ["554 5.5.0 SMTP synchronization error"]),
        (
            {},
            b"MAIL FROM:<a@b.test>\r\nRCPT TO:<a@b.test>\r\nDATA\r\nSubject: too early\r\n\r\n.\r\n",
            ["250 2.1.0 Ok", "250 2.1.5 Ok", "554 5.5.0 SMTP synchronization error"],
        ),
        # Without PIPELINING no commands may be grouped.
        (
            {"extensions": NO_PIPELINING},
            b"MAIL FROM:<a@b.test>\r\nRCPT TO:<a@b.test>\r\n",
            ["554 5.5.0 SMTP synchronization error"],
        ),
    ],
)
async def test_talking_out_of_turn_ends_the_session(
    bench: Bench, settings: dict[str, Any], group: bytes, replies: list[str]
) -> None:
    sandbox = await bench.sandbox(**settings)
    wire = await bench.hello(sandbox)
    wire.send(group)
    assert await wire.rest() == b"".join(reply.encode() + b"\r\n" for reply in replies)
    assert sandbox.accepted() == []


async def test_out_of_turn_may_be_allowed(bench: Bench) -> None:
    sandbox = await bench.sandbox(extensions=NO_PIPELINING, enforce_sync=False)
    wire = await bench.wire(sandbox)
    assert "PIPELINING" not in (await wire.greeted())
    wire.send(ENVELOPE % 1 + CONTENT % 1)
    assert [(await wire.reply())[:3] for _ in range(4)] == ["250", "250", "354", "250"]


async def test_one_step_at_a_time_works_without_pipelining(bench: Bench) -> None:
    sandbox = await bench.sandbox(extensions=NO_PIPELINING)
    wire = await bench.hello(sandbox)
    assert (await wire.deliver()).startswith("250")
    assert (await wire.ask("QUIT")).startswith("221")


async def test_replies_before_a_421_arrive_despite_further_input(bench: Bench) -> None:
    """Closing with unread input would reset the connection, and the replies could be lost."""
    sandbox = await bench.sandbox(
        rules=(SandboxRule(phase=RulePhase.MAIL, messages_over=1, fault=Fault(reply="yahoo-max-messages")),)
    )
    wire = await bench.hello(sandbox)
    wire.send(b"MAIL FROM:<a@b.test>\r\nRSET\r\n" * 2 + b"NOOP\r\n" * 200_000)
    lines = (await wire.rest()).decode().split("\r\n")
    assert [line[:3] for line in lines] == ["250", "250", "421", ""]
