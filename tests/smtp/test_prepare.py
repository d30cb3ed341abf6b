"""Encoding of a message for a session: line ends, dots, addresses, and characters that need an extension."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroad.errors import Blame
from postroad.smtp.errors import UnsendableError
from postroad.smtp.session import dot_stuff
from tests.smtp.conftest import message, nothing, opened
from tests.smtp.scripted import ScriptedServer

LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b".", b"..", b"...", b".x", b"x.", b". ", b"QUIT", b"RSET"]),
        st.binary(max_size=30).filter(lambda line: b"\r" not in line and b"\n" not in line),
    ),
    max_size=8,
)


def unstuffed(sent: bytes) -> bytes:
    """Return what a server stores (RFC 5321 §4.5.2). Nothing may follow the final dot."""
    kept: list[bytes] = []
    lines = sent.split(b"\r\n")
    for number, line in enumerate(lines):
        if line == b".":
            assert lines[number + 1 :] == [b""]
            return b"".join(line + b"\r\n" for line in kept)
        kept.append(line.removeprefix(b"."))
    raise AssertionError("there is no final dot")


@given(lines=LINES, ended=st.booleans())
@example(lines=[b"", b"."], ended=True)
@example(lines=[b"."], ended=False)
def test_dots_are_transparent_and_only_the_last_ends_the_body(lines: list[bytes], ended: bool) -> None:
    content = b"\r\n".join(lines) + (b"\r\n" if ended else b"")
    kept = unstuffed(dot_stuff(content))
    assert kept == (content if content.endswith(b"\r\n") else content + b"\r\n")


@given(
    content=st.lists(st.sampled_from([b"a", b".", b"\r", b"\n", b"\r\n"]), max_size=12).map(b"".join),
)
def test_a_bare_cr_or_lf_is_rejected_anywhere(content: bytes) -> None:
    without = content.replace(b"\r\n", b"")
    if b"\r" in without or b"\n" in without:
        with pytest.raises(UnsendableError) as caught:
            dot_stuff(content)
        assert caught.value.blame is Blame.US
    else:
        unstuffed(dot_stuff(content))


SMUGGLED = [
    b"hello\n.\nMAIL FROM:<x@y>\r\n",
    b"hello\r\n.\nMAIL FROM:<x@y>\r\n",
    b"hello\n.\r\nMAIL FROM:<x@y>\r\n",
    b"hello\r.\rMAIL FROM:<x@y>\r\n",
    b"hello\r\n.\rMAIL FROM:<x@y>\r\n",
    b"hello\r\r\n.\r\r\n",
]


@pytest.mark.parametrize("content", SMUGGLED)
async def test_no_command_is_smuggled_after_a_false_final_dot(content: bytes) -> None:
    server = ScriptedServer()
    async with opened(server) as session:
        with pytest.raises(UnsendableError):
            await session.send(message(b"Subject: x\r\n\r\n" + content), nothing)
        assert server.commands == [server.commands[0]]
        assert server.bodies == []


async def test_a_message_of_dots_arrives_as_it_is() -> None:
    content = b".From: a\r\n\r\n.\r\n..\r\n.QUIT\r\nx.\r\n."
    server = ScriptedServer()
    async with opened(server) as session:
        assert (await session.send(message(content), nothing)).code == 250
        assert [unstuffed(body) for body in server.bodies] == [content + b"\r\n"]
        assert (await session.send(message(), nothing)).code == 250


async def test_a_large_message_arrives_whole() -> None:
    content = b"Subject: x\r\n\r\n" + b"".join(b".%07d\r\n" % number for number in range(300_000))
    server = ScriptedServer()
    async with opened(server) as session:
        assert (await session.send(message(content), nothing)).code == 250
        assert unstuffed(server.bodies[0]) == content


INJECTIONS = [
    "ada@example.org>\r\nRCPT TO:<eve@example.org",
    "ada@example.org\nDATA",
    "ada@example.org\r",
    "ada@example.org> SIZE=1",
    "<ada@example.org",
    "ada lovelace@example.org",
    "ada\t@example.org",
    "ada\x00@example.org",
    "ada\x7f@example.org",
    "ada\udc80@example.org",
]


@pytest.mark.parametrize("address", INJECTIONS)
@pytest.mark.parametrize("where", ["recipient", "return_path"])
async def test_an_address_that_is_more_than_an_address_is_refused(where: str, address: str) -> None:
    server = ScriptedServer()
    async with opened(server) as session:
        envelope = {where: address}
        with pytest.raises(UnsendableError) as caught:
            await session.send(message(**envelope), nothing)  # type: ignore[arg-type]
        assert caught.value.blame is Blame.MESSAGE
        caught.value.reason.encode()
        assert len(server.commands) == 1  # EHLO
        assert session.usable


UTF8_BODY = "Subject: x\r\n\r\ngrüß dich\r\n".encode()
UTF8_HEADER = "Subject: grüß\r\n\r\nhello\r\n".encode()
INTERNATIONAL = "jörg@example.org"


@pytest.mark.parametrize(
    ("content", "recipient", "parameters"),
    [
        (b"Subject: x\r\n\r\nhello\r\n", "ada@example.org", b""),
        (UTF8_BODY, "ada@example.org", b" BODY=8BITMIME"),
        (b"Subject: x\r\n\r\nhello\r\n", INTERNATIONAL, b" SMTPUTF8"),
        # RFC 6531 §3.4: for a header in UTF-8 too, whatever the addresses are.
        (UTF8_HEADER, "ada@example.org", b" BODY=8BITMIME SMTPUTF8"),
        (UTF8_BODY, INTERNATIONAL, b" BODY=8BITMIME SMTPUTF8"),
    ],
)
async def test_extensions_are_asked_for_only_where_they_are_needed(
    content: bytes, recipient: str, parameters: bytes
) -> None:
    server = ScriptedServer()
    async with opened(server) as session:
        assert (await session.send(message(content, recipient=recipient), nothing)).code == 250
        assert server.commands[1:3] == [
            b"MAIL FROM:<bounce@example.com>" + parameters + b"\r\n",
            b"RCPT TO:<" + recipient.encode() + b">\r\n",
        ]


@pytest.mark.parametrize(
    ("extensions", "content", "recipient", "return_path", "blame"),
    [
        (("8BITMIME",), b"Subject: x\r\n\r\n\r\n", INTERNATIONAL, "bounce@example.com", Blame.RECIPIENT),
        (("8BITMIME",), b"Subject: x\r\n\r\n\r\n", "ada@example.org", INTERNATIONAL, Blame.SENDER),
        (("8BITMIME",), UTF8_HEADER, "ada@example.org", "bounce@example.com", Blame.SENDER),
        (("SMTPUTF8",), UTF8_BODY, "ada@example.org", "bounce@example.com", Blame.MESSAGE),
        ((), UTF8_BODY, INTERNATIONAL, "bounce@example.com", Blame.RECIPIENT),
    ],
)
async def test_what_a_server_does_not_offer_is_not_sent_to_it(
    extensions: tuple[str, ...], content: bytes, recipient: str, return_path: str, blame: Blame
) -> None:
    server = ScriptedServer(extensions=extensions)
    async with opened(server) as session:
        with pytest.raises(UnsendableError) as caught:
            await session.send(message(content, recipient=recipient, return_path=return_path), nothing)
        assert caught.value.blame is blame
        assert len(server.commands) == 1  # EHLO
        assert session.usable


async def test_the_null_return_path_is_an_address() -> None:
    server = ScriptedServer()
    async with opened(server) as session:
        assert (await session.send(message(return_path=""), nothing)).code == 250
        assert server.commands[1] == b"MAIL FROM:<>\r\n"
