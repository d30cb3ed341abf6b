"""Whatever the octets are, there is a mail in them, read within bounds."""

from __future__ import annotations

import time
import tracemalloc
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.bounce.classify import BounceClass, classify_recipients
from postroad.bounce.mime import MAX_DEPTH, MAX_MESSAGE_BYTES, MAX_PARTS, MAX_TEXT_BYTES, decode_words, parse_message
from postroad.bounce.parse import parse_mail

SUBTYPES = st.sampled_from(["mixed", "report", "alternative", "related", "x-unheard-of"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=200)
CHARSETS = st.sampled_from(["utf-8", "iso-8859-1", "iso-2022-jp", "klingon", ""])


def _leaf(text: str, encoding: str, charset: str) -> bytes:
    from base64 import encodebytes
    from quopri import encodestring

    octets = text.encode("utf-8", "replace")
    body = {"base64": encodebytes, "quoted-printable": encodestring}.get(encoding, lambda raw: raw)(octets)
    head = f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {encoding}\n\n"
    return head.encode() + body


def _nest(parts: list[bytes], subtype: str, boundary: str, closed: bool) -> bytes:
    head = f'Content-Type: multipart/{subtype}; boundary="{boundary}"\n\npreamble\n'.encode()
    body = b"".join(b"--" + boundary.encode() + b"\n" + part + b"\n" for part in parts)
    return head + body + (b"--" + boundary.encode() + b"--\n" if closed else b"")


LEAVES = st.builds(_leaf, TEXTS, st.sampled_from(["7bit", "base64", "quoted-printable", "x-odd"]), CHARSETS)
ENTITIES = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        _nest,
        st.lists(inner, max_size=4),
        SUBTYPES,
        st.text("abc-_=.", min_size=1, max_size=8).map(lambda text: f"b{text}b"),
        st.booleans(),
    ),
    max_leaves=30,
)


@given(ENTITIES)
@settings(max_examples=200, deadline=None)
def test_any_nesting_is_parsed_within_limits_without_suppression(entity: bytes) -> None:
    parts = parse_message(entity).walk()
    assert len(parts) <= MAX_PARTS
    assert max(part.depth for part in parts) <= MAX_DEPTH
    for part in parts:
        assert len(part.octets) <= MAX_TEXT_BYTES
        assert isinstance(part.text, str)
    assert {one.verdict for one in classify_recipients(parse_mail(entity))} <= {
        BounceClass.UNRELATED,
        BounceClass.CHALLENGE,
        BounceClass.AUTO_REPLY,
    }


@given(st.binary(max_size=2_000))
@settings(max_examples=300, deadline=None)
def test_any_octets_are_a_mail(raw: bytes) -> None:
    assert classify_recipients(parse_mail(raw))


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_what_the_standard_library_writes_is_read_back(texts: list[str], depth: int) -> None:
    message = MIMEMultipart("mixed")
    for text in texts:
        message.attach(MIMEText(text, "plain", "utf-8"))
    for _ in range(depth):
        outer = MIMEMultipart("mixed")
        outer.attach(message)
        message = outer
    read = [part.text for part in parse_message(message.as_bytes()).walk() if not part.parts]
    assert [text.replace("\r\n", "\n").rstrip("\n") for text in read] == [text.rstrip("\n") for text in texts]


def test_depth_and_number_of_parts_are_bounded() -> None:
    deep = b"Content-Type: text/plain\n\nin the deep\n"
    for number in range(200):
        deep = _nest([deep], "mixed", f"b{number}b", closed=True)
    assert max(part.depth for part in parse_message(deep).walk()) == MAX_DEPTH
    wide = _nest([b"\n\nx"] * 5_000, "mixed", "wide", closed=True)
    assert len(parse_message(wide).walk()) == MAX_PARTS


HOSTILE = {
    "brackets": b"Content-Type: text/html\n\n" + b"<" * 500_000,
    "at signs": b"From: mailer-daemon@x.example\nSubject: failure notice\n\nundeliverable\n" + b"a@" * 250_000,
    "long local part": b"From: mailer-daemon@x.example\nSubject: failure notice\n\nundeliverable\n" + b"a.b" * 150_000,
    "long labels": b"From: mailer-daemon@x.example\n\nundeliverable a@" + b"a-" * 250_000,
    "blanks": b"From: mailer-daemon@x.example\nSubject: failure notice\n\nundeliverable\n" + b" \t" * 250_000,
    "header lines": b"A: b\n" * 100_000,
    "one header": b"Subject: " + b" x\n" * 150_000,
    "parameters": b"Content-Type: multipart/mixed" + b'; a="b' * 80_000 + b"\n\nx",
    "encoded words": b"Subject: " + b"=?utf-8?q?a" * 50_000 + b"\n\nx",
    "dashes": b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--" * 250_000,
    "delimiters": b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n" * 120_000,
    "dsn fields": b"Content-Type: message/delivery-status\n\n" + b"Final-Recipient: x\n" * 25_000,
    "digits": b"From: mailer-daemon@x.example\n\nundeliverable a@b.example " + b"5.1." * 120_000,
    "recipients": b"From: mailer-daemon@x.example\n\nundeliverable\n"
    + b"".join(b"<a%d@b.example>:\n" % n for n in range(20_000)),
    "json": b"From: x@sns.amazonaws.com\n\n" + b'{"notificationType":' + b"[" * 30_000,
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_nothing_makes_it_slow(raw: bytes) -> None:
    begin = time.process_time()
    classify_recipients(parse_mail(raw))
    assert time.process_time() - begin < 1.0


def test_nothing_makes_it_large() -> None:
    """The memory that is used in addition to the input is bounded, whatever the size of the input."""
    part = b"--x\nContent-Transfer-Encoding: base64\n\n"
    huge = b"Content-Type: multipart/mixed; boundary=x\n\n" + part + b"QUFB" * 5_000_000
    classify_recipients(parse_mail(b"x"))  # The tables are read once.
    for name, raw in {**HOSTILE, "huge": huge}.items():
        tracemalloc.start()
        classify_recipients(parse_mail(raw))
        _, most_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most_bytes < 16 * MAX_MESSAGE_BYTES, name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=?utf-8?B?w4k=?=", "É"),
        ("=?iso-8859-1?Q?=C9t=E9_1?=", "Été 1"),
        ("=?utf-8?Q?a?= =?utf-8?Q?b?= c", "ab c"),
        ("=?klingon?B?w4k=?=", "É"),
        ("=?utf-8?B?***?=", ""),
        ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
    ],
)
def test_encoded_words_are_decoded(value: str, text: str) -> None:
    assert decode_words(value) == text
