"""Sessions without faults: RFC 5321, and each extension enabled and disabled."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import pytest

from postroad.sandbox import Extension, RulePhase, Sandbox
from tests.sandbox.conftest import Bench

MESSAGE = b"From: ann@from.test\r\nMessage-ID: <1@from.test>\r\n\r\nhello\r\n"


async def test_smtplib_delivers(bench: Bench, only_accepted: Callable[[Sandbox], bytes]) -> None:
    sandbox = await bench.sandbox()
    message = EmailMessage()
    message["From"], message["To"], message["Message-ID"] = "ann@from.test", "bob@to.test", "<2@from.test>"
    message.set_content("hello")

    def send() -> None:
        with smtplib.SMTP(sandbox.host, sandbox.port) as client:
            client.send_message(message)

    await asyncio.to_thread(send)
    (entry,) = sandbox.accepted()
    assert (entry.message_id, entry.sender, entry.recipient) == (
        "<2@from.test>",
        "ann@from.test",
        "bob@to.test",
    )
    assert b"\r\n\r\nhello\r\n" in only_accepted(sandbox)
    assert (sandbox.counters.accepted, sandbox.counters.accepted_recipients) == (1, 1)


async def test_aiosmtplib_delivers_to_many_recipients_in_one_file(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    recipients = [f"r{number}@to.test" for number in range(3)]
    await aiosmtplib.send(
        MESSAGE, sender="ann@from.test", recipients=recipients, hostname=sandbox.host, port=sandbox.port
    )
    entries = sandbox.accepted()
    assert [entry.recipient for entry in entries] == recipients
    assert len({entry.path for entry in entries}) == 1
    assert len(list((sandbox.maildir_path / "new").iterdir())) == 1
    assert list((sandbox.maildir_path / "tmp").iterdir()) == []


async def test_a_stored_message_is_the_content_after_trace_fields(
    bench: Bench, only_accepted: Callable[[Sandbox], bytes]
) -> None:
    sandbox = await bench.sandbox()
    wire = await bench.hello(sandbox)
    assert (await wire.deliver(MESSAGE)).startswith("250 2.0.0 Ok: queued as ")
    kept = only_accepted(sandbox)
    trace, content = kept[: -len(MESSAGE)], kept[-len(MESSAGE) :]
    assert content == MESSAGE
    assert trace.startswith(
        b"Return-Path: <ann@from.test>\r\nX-Sandbox-Recipient: bob@to.test\r\nReceived: from client.test"
    )
    assert b" with ESMTP id " in trace


async def test_dots_are_unstuffed_once_and_messages_may_be_empty(
    bench: Bench, only_accepted: Callable[[Sandbox], bytes]
) -> None:
    sandbox = await bench.sandbox(keep="both")
    wire = await bench.hello(sandbox)
    assert (await wire.deliver(b"..first\r\n...\r\n..\r\nlast.\r\n")).startswith("250")
    assert only_accepted(sandbox).endswith(b"\r\n.first\r\n..\r\n.\r\nlast.\r\n")
    assert (await wire.deliver(b"")).startswith("250")
    assert sandbox.accepted()[1].size == 0


async def test_every_extension_is_advertised_only_when_it_can_be_used(
    bench: Bench, certificate: dict[str, Any]
) -> None:
    bare = await bench.hello(await bench.sandbox())
    assert "STARTTLS" not in (await bare.ask("EHLO again.test"))
    assert "AUTH" not in (await bare.ask("EHLO again.test"))
    full = await bench.sandbox(credentials={"u": "p"}, max_message_bytes=1000, **certificate)
    wire = await bench.wire(full)
    assert (await wire.greeted()).split("\n") == [
        "250-mx.sandbox.test",
        "250-PIPELINING",
        "250-SIZE 1000",
        "250-8BITMIME",
        "250-SMTPUTF8",
        "250-ENHANCEDSTATUSCODES",
        "250-STARTTLS",
        "250 AUTH PLAIN LOGIN CRAM-MD5",
    ]


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        (Extension.SIZE, "MAIL FROM:<a@b.test> SIZE=10"),
        (Extension.EIGHTBITMIME, "MAIL FROM:<a@b.test> BODY=8BITMIME"),
        (Extension.SMTPUTF8, "MAIL FROM:<a@b.test> SMTPUTF8"),
        (Extension.AUTH, "MAIL FROM:<a@b.test> AUTH=<>"),
    ],
)
async def test_a_parameter_of_an_extension_is_refused_when_it_is_off(
    bench: Bench, missing: Extension, command: str
) -> None:
    everything = await bench.hello(await bench.sandbox(credentials={"u": "p"}))
    assert (await everything.ask(command)).startswith("250")
    rest = tuple(extension for extension in Extension if extension is not missing)
    without = await bench.wire(await bench.sandbox(credentials={"u": "p"}, extensions=rest))
    assert missing.value not in (await without.greeted())
    assert (await without.ask(command)).startswith("555 5.5.4")


async def test_without_enhanced_codes_no_reply_carries_one(bench: Bench) -> None:
    wire = await bench.hello(await bench.sandbox(extensions=(Extension.PIPELINING,)))
    assert await wire.ask("MAIL FROM:<ann@from.test>") == "250 Ok"
    assert (await wire.ask("RCPT TO:<bob+550-5.1.1@to.test>")).startswith("550 Requested action")
    assert await wire.ask("RCPT TO:<bob@to.test>") == "250 Ok"
    assert await wire.ask("VRFY bob") == "502 VRFY and EXPN are disabled"


async def test_helo_offers_nothing(bench: Bench) -> None:
    wire = await bench.wire(await bench.sandbox())
    assert await wire.greeted(hello="HELO client.test") == "250 mx.sandbox.test"
    assert (await wire.ask("MAIL FROM:<a@b.test> SIZE=1")).startswith("555")


@pytest.mark.parametrize(
    ("commands", "reply"),
    [
        (["MAIL FROM:<a@b.test>"], "503 5.5.1 Error: send HELO"),
        (["EHLO"], "501 5.5.4"),
        (["EHLO c.test", "RCPT TO:<a@b.test>"], "503 5.5.1 Error: need MAIL"),
        (["EHLO c.test", "DATA"], "503 5.5.1 Error: need MAIL"),
        (["EHLO c.test", "MAIL FROM:<a@b.test>", "MAIL FROM:<a@b.test>"], "503 5.5.1 Error: nested"),
        (["EHLO c.test", "MAIL FROM:<a@b.test>", "DATA"], "554 5.5.1"),
        (["EHLO c.test", "MAIL FROM:<a@b.test>", "RSET", "RCPT TO:<a@b.test>"], "503 5.5.1 Error: need MAIL"),
        (["EHLO c.test", "MAIL FROM:<a@b.test>", "EHLO c.test", "RCPT TO:<a@b.test>"], "503 5.5.1"),
        (["EHLO c.test", "MAIL FROM:<>"], "250 2.1.0"),
        (["EHLO c.test", "MAIL FROM:<>", "RCPT TO:<>"], "501 5.5.4"),
        (["EHLO c.test", "MAIL FROM:<>", "RCPT TO:<postmaster>"], "250 2.1.5"),
        (["EHLO c.test", "MAIL FROM:<@relay.test:a@b.test>"], "250 2.1.0"),
        (["EHLO c.test", 'MAIL FROM:<"a b"@[192.0.2.1]>'], "250 2.1.0"),
        (["EHLO c.test", "MAIL FROM: <a@b.test>"], "501 5.5.4"),
        (["EHLO c.test", "MAIL FROM:a@b.test"], "501 5.5.4"),
        (["EHLO c.test", "MAIL FROM:<a@b.test> SIZE=ten"], "501 5.5.4"),
        (["EHLO c.test", "MAIL FROM:<a@b.test> BODY=BINARYMIME"], "501 5.5.4"),
        (["EHLO c.test", "MAIL FROM:<a@b.test> RET=HDRS"], "555 5.5.4"),
        (["EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<a@b.test> NOTIFY=NEVER"], "555 5.5.4"),
        (["EHLO c.test", "MAIL FROM:<jürgen@b.test>"], "553 5.6.7"),
        (["EHLO c.test", "MAIL FROM:<jürgen@b.test> SMTPUTF8"], "250 2.1.0"),
        (["EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<jürgen@b.test>"], "553 5.6.7"),
        (["EHLO c.test", "MAIL FROM:<a@b.test> SMTPUTF8", "RCPT TO:<jürgen@bücher.test>"], "250 2.1.5"),
        (["EHLO c.test", f"MAIL FROM:<{'l' * 64}@b.test>"], "250 2.1.0"),
        (["EHLO c.test", f"MAIL FROM:<{'l' * 65}@b.test>"], "553 5.1.7"),
        (["EHLO c.test", f"MAIL FROM:<a@{'d.' * 126}test>"], "553 5.1.7"),
        (["EHLO c.test", "VRFY bob"], "502 5.5.1"),
        (["EHLO c.test", "EXPN staff"], "502 5.5.1"),
        (["NOOP"], "250 2.0.0"),
        (["NOOP anything at all"], "250 2.0.0"),
        (["GET / HTTP/1.1"], "500 5.5.2"),
        (["QUIT"], "221 2.0.0"),
        (["STARTTLS"], "502 5.5.1"),
    ],
)
async def test_commands_are_answered_by_the_book(bench: Bench, commands: list[str], reply: str) -> None:
    wire = await bench.wire(await bench.sandbox())
    assert (await wire.reply()).startswith("220")
    *earlier, last = commands
    for command in earlier:
        assert (await wire.ask(command)).startswith("2")
    assert (await wire.ask(last)).startswith(reply)


@pytest.mark.parametrize(
    ("command", "octets"), [("NOOP ", 512), ("MAIL FROM:<a@b.test> AUTH=", 512 + 26 + 17 + 10 + 500)]
)
async def test_a_command_line_has_its_limit(bench: Bench, command: str, octets: int) -> None:
    """RFC 5321 §4.5.3.1.4: the length includes the CRLF. MAIL may be longer by its extensions."""
    wire = await bench.hello(await bench.sandbox(credentials={"u": "p"}))
    longest = command + "x" * (octets - 2 - len(command))
    assert (await wire.ask(longest + "x")).startswith("500 5.5.2 Error: line too long")
    assert (await wire.ask(longest)).startswith("250")


async def test_an_endless_command_line_is_thrown_away_as_it_comes(bench: Bench) -> None:
    wire = await bench.hello(await bench.sandbox())
    for _ in range(64):
        wire.send(b"x" * 65_536)
        await wire.writer.drain()
    assert (await wire.ask("")).startswith("500 5.5.2 Error: line too long")
    assert (await wire.ask("NOOP")).startswith("250")


async def test_a_message_over_the_size_limit_keeps_the_session(bench: Bench) -> None:
    sandbox = await bench.sandbox(max_message_bytes=20_000)
    wire = await bench.hello(sandbox)
    assert (await wire.ask("MAIL FROM:<a@b.test> SIZE=20001")).startswith("552 5.3.4")
    line = b"." * 97 + b"\r\n"  # 99 octets, one more on the wire
    exact = line * 202 + b"12\r\n"[-2:]
    assert len(exact) == 20_000
    stuffed = exact.replace(line, b"." + line)
    assert (await wire.deliver(stuffed)).startswith("250")
    assert (await wire.deliver(b"x" + stuffed)).startswith("552 5.3.4")
    assert (await wire.deliver(line * 30_000)).startswith("552 5.3.4")
    assert (await wire.deliver(MESSAGE)).startswith("250")
    assert [entry.size for entry in sandbox.accepted()] == [20_000, len(MESSAGE)]
    assert sandbox.counters.refused[RulePhase.DOT] == 2
    assert sandbox.counters.refused[RulePhase.MAIL] == 1


async def test_recipients_beyond_the_limit_are_refused_for_now(bench: Bench) -> None:
    sandbox = await bench.sandbox(max_recipients=2)
    wire = await bench.hello(sandbox)
    assert (await wire.envelope()).startswith("250")
    assert (await wire.ask("RCPT TO:<r2@to.test>")).startswith("250")
    assert (await wire.ask("RCPT TO:<r3@to.test>")).startswith("452 4.5.3")
    assert sandbox.counters.refused[RulePhase.RCPT] == 1


@pytest.mark.parametrize(
    ("parameter", "settings", "reply"),
    [
        ("", {}, "554 5.6.1"),
        (" BODY=7BIT", {}, "554 5.6.1"),
        (" BODY=8BITMIME", {}, "250"),
        ("", {"enforce_7bit": False}, "250"),
    ],
)
async def test_8bit_content_must_be_announced(
    bench: Bench, parameter: str, settings: dict[str, Any], reply: str
) -> None:
    wire = await bench.hello(await bench.sandbox(**settings))
    assert (await wire.ask("MAIL FROM:<a@b.test>" + parameter)).startswith("250")
    assert (await wire.ask("RCPT TO:<a@b.test>")).startswith("250")
    assert (await wire.ask("DATA")).startswith("354")
    wire.send("grüße\r\n.\r\n".encode())
    assert (await wire.reply()).startswith(reply)


@pytest.mark.parametrize(("octets", "reply"), [(998, "250"), (999, "552 5.6.0")])
async def test_a_line_of_text_has_at_most_1000_octets(bench: Bench, octets: int, reply: str) -> None:
    """RFC 5321 §4.5.3.1.6: the length includes the CRLF, and not a stuffed dot."""
    wire = await bench.hello(await bench.sandbox())
    short = b"short\r\n" * 400
    line = b"." + b"x" * (octets - 1) + b"\r\n"
    assert (await wire.deliver(short + b"." + line + short)).startswith(reply)


async def test_a_server_may_send_354_without_recipients(bench: Bench) -> None:
    sandbox = await bench.sandbox(data_without_recipients=True)
    wire = await bench.hello(sandbox)
    assert (await wire.envelope(recipient="bob+bounce@to.test")).startswith("550-5.1.1")
    assert (await wire.ask("DATA")).startswith("354")
    wire.send(b".\r\n")
    assert (await wire.reply()).startswith("554 5.5.1 Error: no valid recipients")
    assert sandbox.accepted() == []


async def test_the_protocol_named_in_the_trace_says_what_was_used(
    bench: Bench, only_accepted: Callable[[Sandbox], bytes]
) -> None:
    """RFC 3848; RFC 6531 §4.3."""
    sandbox = await bench.sandbox()
    wire = await bench.hello(sandbox)
    assert (await wire.ask("MAIL FROM:<jürgen@b.test> SMTPUTF8 BODY=8BITMIME")).startswith("250")
    assert (await wire.ask("RCPT TO:<a@b.test>")).startswith("250")
    assert (await wire.ask("DATA")).startswith("354")
    wire.send("Subject: grüße\r\n\r\n.\r\n".encode())
    assert (await wire.reply()).startswith("250")
    assert b" with UTF8SMTP id " in only_accepted(sandbox)
    assert sandbox.accepted()[0].sender == "jürgen@b.test"
