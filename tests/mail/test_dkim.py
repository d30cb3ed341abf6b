"""DKIM: another implementation verifies our signatures, and rejects a changed message."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dkim.canonicalization import Relaxed
from hypothesis import example, given
from hypothesis import strategies as st

from postroad.errors import ConfigError
from postroad.mail.body import File
from postroad.mail.dkim import (
    OVERSIGNED,
    SIGNED,
    Algorithm,
    DkimKey,
    DkimSigner,
    generate_key,
    parse_key,
    relaxed_body,
    relaxed_field,
    relaxed_lines,
    txt_strings,
    zone_line,
)
from postroad.mail.message import Message, MessageSource, compile_message
from tests.mail.conftest import NOW, SIGNER, sender
from tests.mail.parsing import NASTY, TEXT

DAY = timedelta(days=1)


def key(algorithm: Algorithm, selector: str = "2026a", active_from: datetime | None = None) -> DkimKey:
    private_key = parse_key(generate_key(algorithm), where="test")
    return DkimKey(domain="example.com", selector=selector, private_key=private_key, active_from=active_from)


RSA, ED25519 = key(Algorithm.RSA), key(Algorithm.ED25519, "2026b")


def dns(*keys: DkimKey) -> Callable[..., bytes | None]:
    records = {f"{each.record_name}.".encode(): each.record.encode() for each in keys}

    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        return records.get(name)

    return look_up


def signatures(content: bytes) -> int:
    return content.count(b"DKIM-Signature:")


def verified(content: bytes, *keys: DkimKey) -> list[bool]:
    """Return whether dkimpy verifies each signature of a message, from the first."""
    return [_verifies(content, index, *keys) for index in range(signatures(content))]


def _verifies(content: bytes, index: int, *keys: DkimKey) -> bool:
    try:
        return bool(dkim.DKIM(content).verify(idx=index, dnsfunc=dns(*keys)))
    except dkim.ValidationError:
        return False


def message(
    value: str, *keys: DkimKey, html: str | None = "<p>  {{ field }}\t </p>\n", files: Sequence[File] = ()
) -> Message:
    compiled = compile_message(
        MessageSource(
            subject="{{ field }}",
            text="Hello  {{ field }},\n\n  indented \t text \n{{ field }}\n\n\n",
            html=html,
            files=files,
        ),
        sender=sender(display_name=value),
        signer=SIGNER,
        public_url="https://mail.example.com/",
        dkim=DkimSigner(keys),
    )
    return compiled.merge(7, "ada@example.org", {"field": value}, NOW)


@given(TEXT, st.sampled_from([None, "<p>  {{ field }}\t </p>\n", "{% if field %}{{ field }}{% endif %}"]))
def test_dkimpy_verifies_both_signatures_whatever_a_field_holds(value: str, html: str | None) -> None:
    content = message(value, RSA, ED25519, html=html).signed().content
    assert verified(content, RSA, ED25519) == [True, True]


@pytest.mark.parametrize("value", NASTY)
def test_dkimpy_verifies_what_is_nasty(value: str) -> None:
    content = message(value, RSA, ED25519).signed().content
    assert verified(content, RSA, ED25519) == [True, True]


def test_a_message_with_files_is_verified() -> None:
    files = [
        File(name="terms.pdf", media_type="application/pdf", octets=bytes(range(256)) * 40),
        File(name="logo.png", media_type="image/png", octets=b"\x89PNG", content_id="logo"),
    ]
    assert verified(message("x", RSA, files=files).signed().content, RSA) == [True]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Hello", b"Hallo"),
        (b"To: ada", b"To: eve"),
        (b"Subject: Zo", b"Subject: Zoo"),
        (b"List-Unsubscribe: <https", b"List-Unsubscribe: <http"),
        (b"List-Unsubscribe-Post: ", b"List-Unsubscribe-Post: x"),
        (b"Reply-To: answers", b"Reply-To: questions"),
        (b"Message-ID: <", b"Message-ID: <1"),
        (b"Content-Type: multipart/alternative", b"Content-Type: multipart/mixed"),
        *(
            (b"MIME-Version: 1.0", b"MIME-Version: 1.0\r\n%b: eve@example.net" % name.title())
            for name in OVERSIGNED
            if name != b"date"
        ),
    ],
)
def test_what_is_changed_or_added_on_the_way_is_noticed(old: bytes, new: bytes) -> None:
    content = message("Zo", RSA, ED25519).signed().content
    assert old in content
    changed = content.replace(old, new, 1)
    assert verified(changed, RSA, ED25519) == [False, False]


def test_the_algorithms_stand_where_one_looks_for_them() -> None:
    content = message("x", RSA, ED25519).signed().content
    first, second = content.split(b"DKIM-Signature: ")[1:3]
    assert first.startswith(b"v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com;\r\n s=2026a; t=")
    assert second.startswith(b"v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.com;\r\n s=2026b; t=")
    assert f"t={int(NOW.timestamp())};".encode() in first
    named = first.partition(b" h=")[2].partition(b";")[0].replace(b"\r\n ", b"").split(b":")
    assert named.count(b"from") == 2
    assert set(named) <= set(SIGNED)
    assert {b"list-unsubscribe", b"list-unsubscribe-post", b"mime-version", b"content-type"} <= set(named)
    assert max(map(len, content.split(b"\r\n"))) <= 998


def test_without_keys_nothing_is_signed() -> None:
    unsigned = message("x")
    assert unsigned.pending_signatures == ()
    assert unsigned.signed().content == unsigned.content
    assert signatures(unsigned.content) == 0


def test_a_second_selector_takes_over_at_its_date_and_not_before() -> None:
    old, new = key(Algorithm.RSA, "old"), key(Algorithm.RSA, "new", active_from=NOW + DAY)
    other = key(Algorithm.ED25519, "other")
    signer = DkimSigner([new, old, other])
    assert [each.selector for each in signer.keys_at(NOW)] == ["old", "other"]
    assert [each.selector for each in signer.keys_at(NOW + DAY)] == ["new", "other"]
    assert [each.selector for each in signer.keys_at(NOW + DAY - timedelta(microseconds=1))] == ["old", "other"]


@given(st.lists(st.sampled_from([b" ", b"  ", b"\t", b"\r\n", b"a", b".", b"=", b"\x80", b"\r\n\r\n"]), max_size=30))
@example([b"\r\n", b"\r\n"])
@example([b" ", b"\r\n"])
@example([])
def test_bodies_are_canonical_as_another_implementation_has_it(pieces: list[bytes]) -> None:
    body = b"".join(pieces) + b"\r\n"
    # RFC 6376 §3.4.4: a body that holds nothing has the length 0; dkimpy leaves it one line end.
    expected = Relaxed.canonicalize_body(body) if body.strip(b" \t\r\n") else b""
    assert relaxed_body(relaxed_lines(body)) == expected
    assert relaxed_body(relaxed_lines(b"".join(pieces))) == expected  # The session ends the last line.


@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n ", b"a", b":", b"\xc3\xbc"]), max_size=20))
def test_fields_are_canonical_as_another_implementation_has_it(pieces: list[bytes]) -> None:
    value = b"".join(pieces)
    ((name, canonical),) = Relaxed.canonicalize_headers([(b"Subject", value + b"\r\n")])
    assert relaxed_field(b"Subject:" + value + b"\r\n") == name + b":" + canonical


def test_a_record_is_read_back_by_a_verifier_and_cut_for_dns() -> None:
    assert RSA.record_name == "2026a._domainkey.example.com"
    assert RSA.record.startswith("v=DKIM1; k=rsa; p=MII")
    strings = txt_strings(RSA.record)
    assert "".join(strings) == RSA.record
    assert len(strings) == 2
    assert max(map(len, strings)) <= 255
    assert zone_line(RSA) == f'2026a._domainkey.example.com. IN TXT ( "{strings[0]}" "{strings[1]}" )'
    assert ED25519.record.startswith("v=DKIM1; k=ed25519; p=")
    assert len(ED25519.record) < 80


def test_the_vector_of_rfc_8463_verifies() -> None:
    """Appendix A: the key, its public key, and a signature over the same octets."""
    seed = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
    private_key = Ed25519PrivateKey.from_private_bytes(b64decode(seed))
    brisbane = DkimKey(domain="football.example.com", selector="brisbane", private_key=private_key)
    assert brisbane.record == "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    private_key.public_key().verify(brisbane.sign(b"x"), sha256(b"x").digest())


def pem(private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, secret: bytes | None = None) -> bytes:
    locked = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
    return private_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a private key in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "not a private key in PEM"),
        (RSA.record.encode(), "not a private key in PEM"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "neither RSA nor Ed25519"),
        (pem(rsa.generate_private_key(65537, 2048), b"word"), "encrypted with a passphrase"),
    ],
    ids=["nothing", "broken", "record", "ecdsa", "locked"],
)
def test_an_invalid_key_is_a_config_error_without_the_key(content: bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_key(content, where="senders.news.dkim.0")
    assert caught.value.where == "senders.news.dkim.0"
    assert "c2VjcmV0" not in str(caught.value)


def test_a_key_is_not_shown() -> None:
    private = generate_key(Algorithm.RSA).decode().splitlines()[1]
    shown = repr(key(Algorithm.RSA)) + repr(DkimSigner([RSA]))
    assert "PRIVATE" not in shown
    assert private not in shown
