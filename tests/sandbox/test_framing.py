from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postroad.sandbox.framing import Framer, LineFlaw, TooLarge, content_flaw, unstuff_dots
from postroad.sandbox.phrases import OrdinaryReply

PIECES = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"a", b"\r\n.\r\n", b"long" * 9]), max_size=30)


def contents(octets: bytes, cuts: list[int], max_bytes: int) -> list[bytes | TooLarge]:
    framer, found, start = Framer(), list[bytes | TooLarge](), 0
    for cut in [*sorted(cuts), len(octets)]:
        framer.feed(octets[start : max(start, cut)])
        start = max(start, cut)
        while (content := framer.content(max_bytes)) is not None:
            found.append(content)
    return found


def by_the_book(octets: bytes, max_bytes: int) -> list[bytes | TooLarge]:
    """Split messages as in RFC 5321 §4.1.1.4, in a simple way: each message begins as if after a CRLF."""
    found: list[bytes | TooLarge] = []
    while True:
        before, end, octets = (b"\r\n" + octets).partition(b"\r\n.\r\n")
        if not end:
            return found
        content = (before + b"\r\n")[2:]
        found.append(TooLarge.TOO_LARGE if len(content) > max_bytes else content)


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 200), max_size=8), max_bytes=st.integers(0, 60))
def test_messages_are_the_same_whatever_pieces_they_arrive_in(
    pieces: list[bytes], cuts: list[int], max_bytes: int
) -> None:
    octets = b"".join(pieces)
    assert contents(octets, cuts, max_bytes) == by_the_book(octets, max_bytes)


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_lines_are_the_same_whatever_pieces_they_arrive_in(pieces: list[bytes], cuts: list[int]) -> None:
    octets = b"".join(pieces)
    framer, found, start = Framer(), list[bytes | LineFlaw](), 0
    for cut in [*sorted(cuts), len(octets)]:
        framer.feed(octets[start : max(start, cut)])
        start = max(start, cut)
        while (line := framer.line(40)) is not None:
            found.append(line)
    *whole, _rest = octets.split(b"\n")
    expected: list[bytes | LineFlaw] = []
    for line in whole:
        if len(line) + 1 > 40:
            expected.append(LineFlaw.TOO_LONG)
        elif not line.endswith(b"\r"):
            expected.append(LineFlaw.BARE_LF)
        else:
            expected.append(LineFlaw.BARE_CR if b"\r" in line[:-1] else line[:-1])
    assert found == expected


@given(lines=st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x", b"x."])))
def test_unstuffing_undoes_stuffing(lines: list[bytes]) -> None:
    plain = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    assert unstuff_dots(stuffed) == plain


@given(lengths=st.lists(st.integers(0, 12), max_size=12))
def test_the_longest_line_decides(lengths: list[int]) -> None:
    content = b"".join(b"x" * length + b"\r\n" for length in lengths)
    flaw = content_flaw(content, max_line_bytes=10, eight_bit=False)
    assert flaw is (OrdinaryReply.TEXT_LINE_TOO_LONG if any(length > 8 for length in lengths) else None)


def test_memory_stays_within_the_limit_while_a_message_runs_on() -> None:
    framer = Framer()
    for _ in range(1000):
        framer.feed(b"x" * 1000)
        assert framer.content(5000) is None
        assert len(framer) <= 6005
    framer.feed(b"\r\n.\r\nNOOP\r\n")
    assert framer.content(5000) is TooLarge.TOO_LARGE
    assert framer.line(512) == b"NOOP"
