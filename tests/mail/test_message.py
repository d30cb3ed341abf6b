"""Whatever a merge field contains, a parser reads it back. The standard library's parser is the oracle."""

from __future__ import annotations

import html
import re
import unicodedata
from email import policy
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import parseaddr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.mail.conftest import NOW, compiled, sender
from tests.mail.parsing import MAX_LINE_OCTETS, TEXT, blanks, body, cleaned, examples, header_lines, only, parsed, unix


@given(TEXT)
@examples
def test_subject_and_bodies_are_read_as_they_were_meant(value: str) -> None:
    received = parsed(compiled().merge(7, "ada@example.org", {"field": value}, NOW))
    assert received["Subject"] == cleaned(value)
    assert received.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in received.iter_parts()] == ["text/plain", "text/html"]
    assert body(received, "plain") == unix(value)
    assert (
        body(received, "html")
        == f"<p>{unix(str(html.escape(value)).replace('&quot;', '&#34;').replace('&#x27;', '&#39;'))}</p>"
    )


@given(TEXT)
@examples
def test_a_message_of_text_alone_is_read_as_it_was_meant(value: str) -> None:
    received = parsed(compiled(html=None).merge(7, "ada@example.org", {"field": value}, NOW))
    assert received.get_content_type() == "text/plain"
    assert body(received, "plain") == unix(value)


@given(TEXT)
@examples
def test_display_names_are_read_as_they_were_meant(value: str) -> None:
    identity = sender(display_name=value)
    message = compiled(identity=identity, subject="x").merge(7, "ada@example.org", {"field": ""}, NOW)
    received = parsed(message)
    mailbox = only(received["From"])
    if message.content.count(b"=?utf-8?b?") <= 1:
        assert blanks(mailbox.display_name) == blanks(cleaned(value))
    # That parser makes many blanks one, even encoded ones, and puts one between each two encoded words, against
    # RFC 2047 §6.2. Its elder does not.
    unfolded = BytesParser(policy=policy.compat32).parsebytes(message.content)["From"].replace("\r\n", "")
    name, address = parseaddr(unfolded)
    assert str(make_header(decode_header(name))) == cleaned(value)
    assert address == "news@example.com"
    assert mailbox.addr_spec == "news@example.com"
    assert only(received["To"]).addr_spec == "ada@example.org"
    assert only(received["Reply-To"]).addr_spec == "answers@example.com"


@given(TEXT)
@examples
def test_no_header_line_is_longer_than_it_should_be(value: str) -> None:
    identity = sender(display_name=value)
    message = compiled(identity=identity).merge(7, "ada@example.org", {"field": value}, NOW)
    for line in header_lines(message.content):
        # What cannot be folded is one word. A line of blanks alone is obsolete (RFC 5322 §4.2).
        assert len(line) <= 78 or line.count(b" ") <= 1, line
        assert len(line) <= MAX_LINE_OCTETS
        assert line.strip(), message.content


@given(TEXT)
@examples
def test_no_line_of_a_part_is_longer_than_76(value: str) -> None:
    content = compiled(html="{{ field }}").merge(7, "ada@example.org", {"field": value}, NOW).content
    lines = content.partition(b"\r\n\r\n")[2].split(b"\r\n")
    assert max(map(len, lines)) <= 76  # RFC 2045 §6.7 (5)
    # §6.7 (3): a blank at the end of a line may get lost on the way.
    assert not any(line.endswith((b" ", b"\t")) for line in lines)


@given(TEXT, st.integers(0, 2**63 - 1))
def test_the_boundary_is_in_no_part(value: str, touch_id: int) -> None:
    lookalike = f"{value}\r\n--=_postroad_alternative\r\n--=_postroad_alternative--\r\n"
    content = compiled(subject="x").merge(touch_id, "ada@example.org", {"field": lookalike}, NOW).content
    head, _, rest = content.partition(b"\r\n\r\n")
    boundary = re.search(rb'boundary="([^"]+)"', head)
    assert boundary is not None
    assert len(boundary[1]) <= 70  # RFC 2046 §5.1.1
    assert rest.count(boundary[1]) == 3
    assert rest.count(b"\r\n--" + boundary[1]) == 2
    assert rest.startswith(b"--" + boundary[1] + b"\r\n")
    assert rest.endswith(b"\r\n--" + boundary[1] + b"--\r\n")


@pytest.mark.parametrize("text", [unicodedata.normalize("NFC", "e\u0301"), "e\u0301"], ids=["composed", "decomposed"])
def test_characters_are_not_normalised_on_the_way(text: str) -> None:
    received = parsed(compiled().merge(7, "ada@example.org", {"field": text}, NOW))
    assert received["Subject"] == text


def test_the_standard_library_makes_the_same_of_it() -> None:
    """The same headers and parts as EmailMessage, for a message with text in every place."""
    identity = sender(display_name="Zoë, the “Editor”")
    ours = parsed(compiled(identity=identity).merge(7, "ada@example.org", {"field": "Grüße & <Küsse>"}, NOW))
    theirs = EmailMessage(policy=policy.SMTP)
    theirs["From"] = Address(identity.display_name, addr_spec=identity.address)
    theirs["To"] = "ada@example.org"
    theirs["Subject"] = "Grüße & <Küsse>"
    theirs["Date"] = NOW
    theirs["Reply-To"] = "answers@example.com"
    theirs.set_content("Grüße & <Küsse>", cte="quoted-printable")
    theirs.add_alternative("<p>Grüße &amp; &lt;Küsse&gt;</p>", subtype="html", cte="quoted-printable")
    read = BytesParser(policy=policy.default).parsebytes(theirs.as_bytes())
    for name in ("From", "To", "Subject", "Date", "Reply-To"):
        assert ours[name] == read[name]
    for mine, its in zip(ours.iter_parts(), read.iter_parts(), strict=True):
        assert isinstance(mine, EmailMessage)
        assert isinstance(its, EmailMessage)
        assert mine.get_content_type() == its.get_content_type()
        assert mine.get_content_charset() == its.get_content_charset()
        assert mine.get_content().rstrip() == its.get_content().rstrip()
