"""Addresses are normalised to one spelling for each mailbox, by the fast path and by email-validator."""

from __future__ import annotations

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given
from hypothesis import strategies as st

from postroad.errors import DataError
from postroad.mail.address import MAX_ADDRESS_OCTETS, domain_of, normalise_address

LABEL = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
ADDRESS = st.builds(
    lambda local, labels, end: f"{local}@{'.'.join([*labels, end])}",
    st.from_regex(r"[a-zA-Z0-9_%+'-]{1,12}(\.[a-zA-Z0-9_%+'-]{1,6}){0,2}", fullmatch=True),
    st.lists(LABEL, min_size=1, max_size=3),
    st.from_regex(r"[a-z]{2,8}", fullmatch=True),
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Lovelace+News@Example.COM \t\r\n", "ada.lovelace+news@example.com"),
        ("o'brien@example.co.uk", "o'brien@example.co.uk"),
        ("ada@bücher.example.com", "ada@xn--bcher-kva.example.com"),
        ("ada@xn--bcher-kva.example.com", "ada@xn--bcher-kva.example.com"),
        ("ADA@XN--BCHER-KVA.EXAMPLE.COM", "ada@xn--bcher-kva.example.com"),
        ("JÖRG@example.com", "jörg@example.com"),
        ("ada@example。com", "ada@example.com"),
        (f"{'a' * 64}@example.com", f"{'a' * 64}@example.com"),
    ],
)
def test_one_spelling(text: str, address: str) -> None:
    assert normalise_address(text) == address
    assert normalise_address(address) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@@example.com",
        "ada lovelace@example.com",
        "ada@example .com",
        "ada@-example.com",
        "ada@example-.com",
        "ada@example..com",
        ".ada@example.com",
        "ada.@example.com",
        "a..da@example.com",
        "ada@example.com, eve@example.net",
        "Ada <ada@example.com>",
        "ada@example.com\r\nBcc: eve@example.net",
        "ada\x00@example.com",
        "ada@exam\x7fple.com",
        "ada@\x85example.com",
        "ada@exam\u2028ple.com",
        "ada@127.0.0.1",
        "ada@XN--\x00.com",
        "ada@xn--zzzzzz99999.com",
        "ADA@XN--ZZZZZZ99999.COM",
        f"ada@{'.'.join(['a' * 60] * 5)}.com",
        f"ada@{'a' * 64}.com",
        "ada\ud800@example.com",
    ],
)
def test_what_is_no_address_is_a_data_error_with_a_reason(text: str) -> None:
    with pytest.raises(DataError) as caught:
        normalise_address(text)
    assert caught.value.message


@given(ADDRESS)
def test_the_short_way_says_what_the_long_one_does(text: str) -> None:
    try:
        valid = validate_email(text, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError:
        return
    assert normalise_address(text) == f"{valid.local_part}@{valid.ascii_domain}".lower()


@given(
    st.one_of(
        ADDRESS, st.text(max_size=40), st.text("aB.@-+é ß\u212a\u0130", max_size=12).map("x{}@example.com".format)
    )
)
def test_a_normalised_address_is_normal_and_safe(text: str) -> None:
    try:
        address = normalise_address(text)
    except DataError:
        return
    assert normalise_address(address) == address
    assert address == address.lower() == address.strip()
    assert not any(ord(character) <= 32 or character in '<>,;:\\"\x7f' for character in address)
    assert address.count("@") == 1
    assert domain_of(address).isascii()
    assert len(address.encode()) <= MAX_ADDRESS_OCTETS
