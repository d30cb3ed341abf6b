"""Texts that are hard to encode, and what a parser reads of a message."""

from __future__ import annotations

import re
from collections.abc import Callable
from email import policy
from email.headerregistry import Address, AddressHeader
from email.message import EmailMessage
from email.parser import BytesParser

from hypothesis import example
from hypothesis import strategies as st

from postroad.mail.message import Message

MAX_LINE_OCTETS = 998  # RFC 5322 §2.1.1

HEADERS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
]

NASTY = [
    "",
    " ",
    "x\r\nBcc: eve@example.net",
    "x\r\n\r\n<html>",
    "x\nBcc: eve@example.net",
    "x\rBcc: eve@example.net",
    "x\u2028Bcc: eve@example.net\u2029y",
    "x\x85Bcc: eve@example.net\x0b\x0c\x1c\x1d\x1e",
    "nul\x00nul",
    "=?utf-8?q?Bcc=3A?=",
    "=?utf-8?b?PT0=?= =?utf-8?b?PT0=?=",
    "a =?x y?= b",
    "x" * 2000,
    " ".join(["word"] * 400),
    "a" + " " * 300 + "b",
    '"quoted" \\ back',
    '"' * 500,
    "Lovelace, Ada (Countess) <ada@example.org>; x: y",
    "a.b@c.d, e@f.g",
    ", ".join(["Dr. Who"] * 100),
    "\ud800 lone \udfff",
    "שלום עולם \u202eevil\u202c",
    "👩‍👩‍👧‍👦🏳️‍🌈" * 20,
    "e\u0301" * 100,
    "日本語" * 100,
    ".",
    ".\r\n.\r\n",
    "--=_postroad_7\r\n",
    "--=_postroad_7--",
    "From here",
    "tail \t ",
    "x" * 75 + " \n" + "x" * 76 + "\n" + "x" * 74 + "\t\n",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; & <script>alert('\"')</script>",
]

TEXT = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=200),
    st.text(st.sampled_from(' =?_.<>@,;:"\\()\r\n\t\x00aé日😀-'), max_size=200),
    st.lists(st.sampled_from(NASTY), max_size=4).map("".join),
    st.text(st.characters(), max_size=60),  # surrogates too
)


def examples(check: Callable[[str], None]) -> Callable[[str], None]:
    for text in NASTY:
        check = example(text)(check)
    return check


def parsed(message: Message) -> EmailMessage:
    """Check the properties of every message, and return it as a receiver parses it."""
    content = message.content
    assert content.isascii()
    assert content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r")
    assert b"\x00" not in content
    assert max(map(len, content.split(b"\r\n"))) <= MAX_LINE_OCTETS
    found = BytesParser(policy=policy.default).parsebytes(content)
    assert isinstance(found, EmailMessage)
    for part in found.walk():
        assert part.defects == []
    optional = {"Reply-To", "Content-Transfer-Encoding"} - set(found.keys())
    assert found.keys() == [name for name in HEADERS if name not in optional]
    for name, value in found.items():
        assert value.defects == (), (name, value, value.defects)
    return found


def header_lines(content: bytes) -> list[bytes]:
    return content.partition(b"\r\n\r\n")[0].split(b"\r\n")


def cleaned(text: str) -> str:
    """Return a value as header fields write it: runs of controls and surrogates become one space."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+", " ", text).strip()


def unix(text: str) -> str:
    """Return a value as bodies write it: with normalised line ends, and a question mark for a surrogate."""
    return text.replace("\r\n", "\n").replace("\r", "\n").encode(errors="replace").decode()


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    octets = part.get_payload(decode=True)
    assert isinstance(octets, bytes)
    return octets.decode().replace("\r\n", "\n")


def blanks(text: str) -> str:
    """Return the text with every run of blanks, of any script, replaced by one."""
    return " ".join(text.split())


def only(header: AddressHeader) -> Address:
    assert len(header.addresses) == 1
    return header.addresses[0]
