"""Addresses: one spelling for each mailbox, and a reason for each invalid address."""

from __future__ import annotations

import string

import email_validator
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from postroad.errors import DataError
from postroad.mail.address import MAX_ADDRESS_OCTETS, domain_of, normalise_address

LONG_DOMAIN = ".".join(["b" * 60] * 3) + ".de"  # of 185 octets

GOOD = [
    ("a@example.com", "a@example.com"),
    ("  a@example.com\t", "a@example.com"),
    ("Ada.Lovelace@Example.COM", "ada.lovelace@example.com"),
    ("o'brien@example.com", "o'brien@example.com"),
    ("user+tag@example.com", "user+tag@example.com"),
    ("!#$%&'*+/=?^_`{|}~-@example.com", "!#$%&'*+/=?^_`{|}~-@example.com"),
    ("1@2.de", "1@2.de"),
    ("a@b.c", "a@b.c"),
    ("a@ab--cd.de", "a@ab--cd.de"),
    ("a@example.test", "a@example.test"),
    ("!@example.test", "!@example.test"),
    ("x" * 64 + "@example.com", "x" * 64 + "@example.com"),
    ("x" * 64 + "@" + LONG_DOMAIN, "x" * 64 + "@" + LONG_DOMAIN),
    ("a@" + "b" * 63 + ".de", "a@" + "b" * 63 + ".de"),
    # RFC 5890: a domain has two spellings; the ASCII one is stored.
    ("a@münchen.de", "a@xn--mnchen-3ya.de"),
    ("a@MÜNCHEN.de", "a@xn--mnchen-3ya.de"),
    ("a@mu\u0308nchen.de", "a@xn--mnchen-3ya.de"),
    ("a@xn--mnchen-3ya.de", "a@xn--mnchen-3ya.de"),
    ("a@XN--MNCHEN-3YA.DE", "a@xn--mnchen-3ya.de"),
    ("a@faß.de", "a@xn--fa-hia.de"),
    ("a@пример.рф", "a@xn--e1afmkfd.xn--p1ai"),
    ("a@b.xn--p1ai", "a@b.xn--p1ai"),
    # RFC 6531: a local part need not be ASCII; it is composed (NFC) and in lower case.
    ("我@例え.jp", "我@xn--r8jz45g.jp"),
    ("JOSÉ@example.com", "josé@example.com"),
    ("jose\u0301@example.com", "josé@example.com"),
    ("J\u030c@example.com", "\u01f0@example.com"),
]


@pytest.mark.parametrize(("written", "kept"), GOOD)
def test_an_address_has_one_spelling(written: str, kept: str) -> None:
    assert normalise_address(written) == kept


BAD = [
    ("", "must have an @-sign"),
    ("   ", "must have an @-sign"),
    ("nobody", "must have an @-sign"),
    ("@example.com", "something before the @-sign"),
    ("a@", "something after the @-sign"),
    ("a@@example.com", "after the @-sign contains invalid characters"),
    ("a@b.de,c@d.de", "after the @-sign contains invalid characters"),
    ("a b@example.com", "invalid characters before the @-sign: SPACE"),
    ("a,b@example.com", "invalid characters before the @-sign"),
    ("a;b@example.com", "invalid characters before the @-sign"),
    ("mailto:a@example.com", "invalid characters before the @-sign"),
    ("<a@example.com>", "display name and angle brackets"),
    ("Ada <a@example.com>", "display name and angle brackets"),
    ('"a b"@example.com', "Quoting the part before the @-sign is not allowed"),
    ("a@[192.0.2.1]", "bracketed IP address"),
    ("a@[IPv6:2001:db8::1]", "bracketed IP address"),
    (".a@example.com", "cannot start with a period"),
    ("a.@example.com", "period immediately before the @-sign"),
    ("a..b@example.com", "two periods in a row"),
    ("a@example..com", "two periods in a row"),
    ("a@example.com.", "cannot end with a period"),
    ("a@.example.com", "period immediately after the @-sign"),
    ("a@-b.de", "hyphen immediately after the @-sign"),
    ("a@b-.de", "period and a hyphen next to each other"),
    ("a@b_c.de", "after the @-sign contains invalid characters"),
    ("a@192.0.2.1", "not valid"),
    ("a@example.123", "not valid"),
    ("a@example", "period"),
    ("a@test", "single word"),
    ("a@xn--zzz9.com", "not valid IDNA"),
    ("a@XN--ZZZ9.com", "not valid IDNA"),
    ("x" * 65 + "@example.com", "more than 64 octets before the @-sign"),
    ("é" * 33 + "@example.com", "more than 64 octets before the @-sign"),
    ("Ⱥ" * 30 + "@example.com", "more than 64 octets before the @-sign"),
    ("x" * 64 + "@bbbb." + LONG_DOMAIN, "too long"),
    ("a@" + "b" * 64 + ".de", "too many"),
    ("a\x00b@example.com", "control character"),
    ("a\r\nBcc: b@example.com", "control character"),
    ("a@exam\x7fple.com", "control character"),
    ("\u200ba@example.com", "ZERO WIDTH SPACE"),
    ("a\u202eb@example.com", "RIGHT-TO-LEFT OVERRIDE"),
]


@pytest.mark.parametrize(("written", "reason"), BAD)
def test_an_invalid_address_is_refused_with_the_reason(written: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        normalise_address(written)


SPECIAL = [name for name in email_validator.SPECIAL_USE_DOMAIN_NAMES if name != "test"]


@pytest.mark.parametrize("local", ["a", "!"])  # one for the fast path, and one that needs the whole grammar
@pytest.mark.parametrize("name", SPECIAL)
def test_an_unresolvable_domain_name_is_refused(name: str, local: str) -> None:
    """RFC 6761 §6, RFC 6762 §3, RFC 7686 §2."""
    for domain in (f"example.{name}", f"example.{name.upper()}"):
        with pytest.raises(DataError, match="special-use or reserved"):
            normalise_address(f"{local}@{domain}")
    assert normalise_address(f"{local}@example.{name}s") == f"{local}@example.{name}s"


WORD = string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~.@\"<>() \t\r\n\x00,;:[]\\"
WORD += "äßİΣςǰẞéⱥȺŉ我\u0301\u030c\u200b\u00a0．。ｂ"
LETTERS = st.text(string.ascii_letters + string.digits + ".-+_'äßİΣςẞéȺ我\u0301\u030cJ", min_size=1, max_size=70)
DOMAINS = st.text(string.ascii_letters + string.digits + ".-äßéß例xnXN", min_size=1, max_size=30)
NEAR = st.builds("{}@{}.{}".format, LETTERS, DOMAINS, st.sampled_from(["com", "DE", "xn--p1ai", "рф", "c", "1"]))
ANY = st.text(WORD, max_size=30)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(NEAR, ANY, st.emails()))
@example("J\u030c@example.com")
@example("a@XN--ZZZ9.com")
@example("Ⱥ" * 31 + "@example.com")
def test_normalisation_is_idempotent(text: str) -> None:
    try:
        kept = normalise_address(text)
    except DataError:
        return
    assert normalise_address(kept) == kept
    assert normalise_address(f" {kept.upper() if kept.isascii() else kept} ") == kept
    local, _, domain = kept.rpartition("@")
    assert len(kept.encode()) <= MAX_ADDRESS_OCTETS
    assert 1 <= len(local.encode()) <= 64
    assert domain.isascii()
    assert "." in domain
    assert domain == domain.lower() == domain_of(kept)
    assert not any(character.isspace() or character < " " for character in kept)


PLAIN_LOCAL = st.from_regex(r"[A-Za-z0-9_%+'-]{1,20}(\.[A-Za-z0-9_%+'-]{1,20}){0,2}", fullmatch=True)
PLAIN_DOMAIN = st.from_regex(r"([A-Za-z0-9]([A-Za-z0-9-]{0,8}[A-Za-z0-9])?\.){1,3}[A-Za-z]{1,6}", fullmatch=True)


@settings(deadline=None)
@given(PLAIN_LOCAL, PLAIN_DOMAIN)
def test_the_fast_path_accepts_only_what_the_grammar_accepts(local: str, domain: str) -> None:
    """Two hyphens in third place are the one exception: IDNA reserves them, but host names use them."""
    text = f"{local}@{domain}"
    try:
        valid = email_validator.validate_email(text, check_deliverability=False, test_environment=True, strict=True)
    except email_validator.EmailNotValidError:
        if any(label[2:4] == "--" for label in domain.split(".")):
            return
        with pytest.raises(DataError):
            normalise_address(text)
    else:
        assert normalise_address(text) == valid.normalized.lower()
