"""Replies (RFC 5321 §4.2), split into packets in any way and with any content."""

from __future__ import annotations

import asyncio
import socket
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.smtp.protocol import ReplyLines, SmtpProtocol
from postroad.smtp.reply import Phase, Reply, parse_reply

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), max_size=12)
TEXTS = st.lists(WORDS, max_size=5).map(" ".join)
REPLIES = st.tuples(st.integers(200, 599), st.lists(TEXTS, min_size=1, max_size=4))


def octets(code: int, lines: list[str], end: str) -> bytes:
    parts = [f"{code}-{line}" for line in lines[:-1]] + [f"{code} {lines[-1]}"]
    return "".join(part + end for part in parts).encode()


@given(
    replies=st.lists(REPLIES, min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 400), max_size=12),
    end=st.sampled_from(["\r\n", "\n"]),
)
def test_any_chunking_gives_the_same_replies(replies: list[tuple[int, list[str]]], cuts: list[int], end: str) -> None:
    stream = b"".join(octets(code, lines, end) for code, lines in replies)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[start:stop] for start, stop in pairwise(edges)]

    async def read(chunks: list[bytes]) -> list[ReplyLines]:
        ours, theirs = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        try:
            wire = SmtpProtocol(transport)
            answers = [wire.expect((60.0,)) for _ in replies]
            for chunk in chunks:
                wire.data_received(chunk)
            assert wire.lost is None
            return [reply for answer in answers for reply in answer.replies]
        finally:
            transport.close()
            theirs.close()

    at_once = asyncio.run(read([stream]))
    assert at_once == [(code, tuple(lines)) for code, lines in replies]
    assert asyncio.run(read(chunks)) == at_once
    assert asyncio.run(read([bytes([octet]) for octet in stream])) == at_once


def test_the_enhanced_code_is_taken_out_of_every_line() -> None:
    # Gmail, 2024
    lines = [
        "5.1.1 The email account that you tried to reach does not exist. Please try",
        "5.1.1 double-checking the recipient's email address for typos or",
        "5.1.1 unnecessary spaces. For more information, go to",
        "5.1.1  https://support.google.com/mail/?p=NoSuchUser a1-2b - gsmtp",
    ]
    reply = parse_reply(Phase.RCPT, 550, lines)
    assert reply.enhanced == "5.1.1"
    assert "5.1.1" not in reply.text
    assert reply.text.startswith("The email account that you tried to reach does not exist. Please try double-checking")


@pytest.mark.parametrize(
    ("code", "line", "enhanced", "text"),
    [
        (250, "2.1.0 Ok", "2.1.0", "Ok"),
        (250, "2.0.0", "2.0.0", ""),
        (550, "5.7.515 Access denied", "5.7.515", "Access denied"),
        # RFC 2034 §4: the class is that of the reply code, or it is no enhanced code.
        (450, "5.1.1 later", None, "5.1.1 later"),
        (250, "1.2.3.4 is who you are", None, "1.2.3.4 is who you are"),
        (550, "5.1.1.2 four of them", None, "5.1.1.2 four of them"),
        (550, "5.1.1, with a comma", None, "5.1.1, with a comma"),
        # How qmail and IronPort write it.
        (
            550,
            "sorry, no mailbox here by that name. (#5.1.1)",
            "5.1.1",
            "sorry, no mailbox here by that name. (#5.1.1)",
        ),
        (550, "#5.1.0 Address rejected.", "5.1.0", "#5.1.0 Address rejected."),
        (450, "sorry (#5.1.1)", None, "sorry (#5.1.1)"),
        (550, "ticket #5.1.12345 at the desk", None, "ticket #5.1.12345 at the desk"),
        (550, "", None, ""),
    ],
)
def test_enhanced_codes(code: int, line: str, enhanced: str | None, text: str) -> None:
    assert parse_reply(Phase.RCPT, code, [line]) == Reply(Phase.RCPT, code, enhanced, text)


@given(lines=st.lists(st.text(max_size=30), min_size=1, max_size=4), code=st.integers(200, 599))
def test_the_text_of_a_reply_is_safe_to_store_and_show(lines: list[str], code: int) -> None:
    """It has no control character (terminals obey them, PostgreSQL rejects NUL), and it can be encoded as UTF-8."""
    reply = parse_reply(Phase.DOT, code, lines)
    reply.text.encode()
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in str(reply))
    assert reply.enhanced is None or reply.enhanced[0] == str(code)[0]


@given(st.binary(max_size=60).filter(lambda octets: b"\n" not in octets))
def test_octets_that_are_not_utf8_are_accepted(line: bytes) -> None:
    decoded = line.decode("utf-8", "surrogateescape")  # as aiosmtplib does
    parse_reply(Phase.CONNECT, 554, [decoded]).text.encode()
