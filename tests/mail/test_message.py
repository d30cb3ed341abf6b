"""Whatever a merge field contains, a parser reads it back. The standard library's parser is the oracle."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from email import policy
from email.header import decode_header, make_header
from email.headerregistry import Address, AddressHeader, DateHeader
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import parseaddr

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroad.mail.message import Message
from postroad.mail.token import Purpose
from tests.mail.conftest import NOW, SIGNER, compiled, sender

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


INJECTIONS = [f"x{end}Bcc: eve@example.net" for end in ("\r\n", "\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029")]


@pytest.mark.parametrize("value", INJECTIONS, ids=ascii)
@pytest.mark.parametrize("where", ["field", "display_name", "address", "reply_to", "recipient"])
def test_no_value_begins_a_field_of_its_own(where: str, value: str) -> None:
    identity = sender(
        display_name=value if where == "display_name" else "News",
        address=value if where == "address" else "news@example.com",
        reply_to=value if where == "reply_to" else "answers@example.com",
    )
    recipient = value if where == "recipient" else "ada@example.org"
    content = (
        compiled(identity=identity).merge(7, recipient, {"field": value if where == "field" else "x"}, NOW).content
    )
    names = [line.split(b":")[0].decode() for line in header_lines(content) if not line.startswith((b" ", b"\t"))]
    assert names == HEADERS[:-1]


def test_a_field_cannot_pass_for_one_of_ours() -> None:
    template = compiled(text="{{ unsubscribe_url }} {{ address }} {{ postal_address }} {{ sender_name }}", subject="x")
    forged = dict.fromkeys(("unsubscribe_url", "address", "postal_address", "sender_name", "field"), "forged")
    received = parsed(template.merge(7, "ada@example.org", forged, NOW))
    token = SIGNER.sign(Purpose.UNSUBSCRIBE, 7)
    assert body(received, "plain") == (
        f"https://mail.example.com/u/{token} ada@example.org Example Ltd, 1 Example Street, Exampleton Example News"
    )


def test_fields_are_those_that_the_templates_name() -> None:
    template = compiled(subject="{{ a }}", text="{% for x in b %}{{ x.y }}{% endfor %}", html="{{ c|upper }}")
    assert template.fields == {"a", "b", "c"}
    assert compiled(subject="{{ a }}", text="{{ address }}", html=None).fields == {"a", "address"}


def test_message_id_is_stable_unique_and_in_the_senders_domain() -> None:
    template = compiled()
    ids = {}
    for touch_id in (0, 1, 2, 17, 2**40, 2**63 - 1):
        first = template.merge(touch_id, "ada@example.org", {"field": "x"}, NOW)
        later = template.merge(touch_id, "eve@example.net", {"field": "y"}, datetime(2027, 1, 1, tzinfo=UTC))
        assert first.message_id == later.message_id == template.message_id(touch_id)
        assert parsed(first)["Message-ID"] == first.message_id
        assert re.fullmatch(r"<[a-z0-9-]+@example\.com>", first.message_id)
        ids[first.message_id] = touch_id
    assert len(ids) == 6


def test_the_unsubscribe_pair_is_as_rfc_8058_wants_it() -> None:
    received = parsed(compiled().merge(7, "ada@example.org", {"field": "x"}, NOW))
    token = SIGNER.sign(Purpose.UNSUBSCRIBE, 7)
    # §3.1: exactly one HTTPS address, and the second field exactly like this.
    assert re.findall(r"<([^>]*)>", received["List-Unsubscribe"]) == [
        f"https://mail.example.com/u/{token}",
        f"mailto:unsubscribe+{token}@bounces.example.com",
    ]
    assert received["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


@pytest.mark.parametrize(
    "public_url", ["https://mail.example.com", "https://mail.example.com/", "https://x.example/a/b/"]
)
def test_the_unsubscribe_address_has_one_slash_before_it(public_url: str) -> None:
    received = parsed(compiled(public_url=public_url).merge(7, "ada@example.org", {"field": "x"}, NOW))
    assert f"<{public_url.rstrip('/')}/u/" in received["List-Unsubscribe"]


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_the_date_is_the_time_of_the_merge(now: datetime) -> None:
    received = parsed(compiled().merge(7, "ada@example.org", {"field": "x"}, now))
    assert isinstance(received["Date"], DateHeader)
    assert received["Date"].datetime == now.replace(microsecond=0)


def test_the_return_path_tells_the_touch() -> None:
    envelope = compiled().merge(7, "ada@example.org", {"field": "x"}, NOW)
    token = SIGNER.sign(Purpose.BOUNCE, 7)
    assert envelope.return_path == f"bounce+{token}@bounces.example.com"
    assert envelope.recipient == "ada@example.org"
    assert len(envelope.return_path.partition("@")[0]) <= 64  # RFC 5321 §4.5.3.1.1
    longest = compiled().merge(2**64 - 1, "ada@example.org", {"field": "x"}, NOW).return_path
    assert len(longest.partition("@")[0]) <= 64


def test_without_a_bounce_domain_bounces_go_to_the_sender() -> None:
    template = compiled(identity=sender(bounce_domain=None, reply_to=None))
    message = template.merge(7, "ada@example.org", {"field": "x"}, NOW)
    assert message.return_path == "news@example.com"
    received = parsed(message)
    assert "Reply-To" not in received
    assert "@example.com>" in received["List-Unsubscribe"]


def test_an_address_in_utf8_is_unchanged_in_the_header() -> None:
    # RFC 6532 §3.2: it cannot be encoded; the session asks for SMTPUTF8.
    message = compiled().merge(7, "jörg@example.org", {"field": "x"}, NOW)
    assert "To: jörg@example.org\r\n".encode() in message.content


def test_reply_to_has_a_token_if_the_setting_has_a_place_for_it() -> None:
    identity = sender(reply_to="hello+{token}@example.com")
    received = parsed(compiled(identity=identity).merge(7, "ada@example.org", {"field": "x"}, NOW))
    assert received["Reply-To"] == f"hello+{SIGNER.sign(Purpose.REPLY, 7)}@example.com"


def test_a_message_that_leaves_by_no_mail_service_has_no_tag() -> None:
    message = compiled().merge(7, "ada@example.org", {"field": "x"}, NOW)
    assert b"\r\nX-" not in message.content
