"""The header of a message: identity, unsubscribe pair, date, return path, and no field of a merge value."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.headerregistry import DateHeader

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.mail.token import Purpose
from tests.mail.conftest import NOW, SIGNER, compiled, sender
from tests.mail.parsing import HEADERS, body, header_lines, parsed

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
