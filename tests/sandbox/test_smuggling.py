"""SMTP smuggling (CVE-2023-51764 and others): only CRLF . CRLF ends a message, and a bare CR or LF is rejected."""

from __future__ import annotations

import pytest

from tests.sandbox.conftest import Bench

SMUGGLED = b"MAIL FROM:<evil@from.test>\r\nRCPT TO:<victim@to.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"


@pytest.mark.parametrize(
    ("look_alike", "reply"),
    [
        (b"\n.\n", "550 5.5.2 Error: bare <LF> received"),
        (b"\n.\r\n", "550 5.5.2 Error: bare <LF> received"),
        (b"\r\n.\n", "550 5.5.2 Error: bare <LF> received"),
        (b"\r.\r", "550 5.5.2 Error: bare <CR> received"),
        (b"\r.\r\n", "550 5.5.2 Error: bare <CR> received"),
        (b"\r\n.\r", "550 5.5.2 Error: bare <CR> received"),
        (b"\r\n\x00.\r\n", None),
        (b"\r\n.\x00\r\n", None),
        (b"\r\r\n.\r\r\n", "550 5.5.2 Error: bare <CR> received"),
    ],
)
async def test_no_look_alike_ends_a_message(bench: Bench, look_alike: bytes, reply: str | None) -> None:
    sandbox = await bench.sandbox()
    wire = await bench.hello(sandbox)
    assert (await wire.envelope()).startswith("250")
    assert (await wire.ask("DATA")).startswith("354")
    wire.send(b"Subject: first\r\n\r\nbody" + look_alike + SMUGGLED)
    answer = await wire.reply()
    assert answer == reply if reply else answer.startswith("250")
    # Only one message arrived, and the commands hidden in it had no effect.
    assert (await wire.ask("NOOP")).startswith("250 2.0.0 Ok")
    assert len(sandbox.accepted()) == (0 if reply else 1)
    assert all(entry.recipient == "bob@to.test" for entry in sandbox.accepted())


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"NOOP\n", "500 5.5.2 Error: bare <LF>"),
        (b"NOOP\rNOOP\r\n", "500 5.5.2 Error: bare <CR>"),
        (b"NOOP\r\r\n", "500 5.5.2 Error: bare <CR>"),
        (b"NOOP \xff\r\n", "500 5.5.2 Error: bad UTF-8"),
    ],
)
async def test_a_command_line_ends_with_crlf_and_nothing_less(bench: Bench, line: bytes, reply: str) -> None:
    wire = await bench.hello(await bench.sandbox())
    wire.send(line)
    assert (await wire.reply()).startswith(reply)
    assert (await wire.ask("NOOP")).startswith("250")


async def test_a_header_cannot_be_forged_through_the_greeting(bench: Bench) -> None:
    wire = await bench.wire(await bench.sandbox())
    assert (await wire.greeted(hello="EHLO a (b)@[c>")).startswith("501 5.5.4")
