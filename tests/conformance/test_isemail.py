"""Addresses of the isemail corpus: accepted ones have deliverable syntax, rejected ones have a reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from postroad.errors import DataError
from postroad.mail.address import normalise_address

FILES = ("tests.xml", "tests-original.xml")

DELIVERABLE = {
    "ISEMAIL_VALID_CATEGORY": "an address as it should be",
    "ISEMAIL_DNSWARN": "good syntax; whether DNS knows the domain is asked when it is sent to, not here",
}
"""Categories that must be accepted."""

REFUSED_ON_PURPOSE = {
    "ISEMAIL_RFC5321_QUOTEDSTRING": "RFC 5321 §4.1.2 says SHOULD avoid: where a list has one, it is a mistake",
    "ISEMAIL_RFC5321_ADDRESSLITERAL": "a person's mailbox is not at an IP address, and large receivers refuse it",
    "ISEMAIL_RFC5321_IPV6DEPRECATED": "an address literal again",
    "ISEMAIL_RFC5321_TLD": "no top-level domain has mailboxes (SSAC 053): it is a word that was not finished",
    "ISEMAIL_RFC5321_TLDNUMERIC": "no top-level domain is a number (RFC 3696 §2): it is an IP address",
}
"""Diagnoses of addresses that RFC 5321 allows, and that are rejected."""

ACCEPTED_TRIMMED = {
    "ISEMAIL_CFWS_FWS": "white space around an address comes with the cell of a spreadsheet, and is taken off",
    "ISEMAIL_DEPREC_FWS": "the same, over several lines",
    "ISEMAIL_ERR_EXPECTING_ATEXT": "a line end behind or before an address",
    "ISEMAIL_ERR_CR_NO_LF": "the same",
    "ISEMAIL_ERR_FWS_CRLF_END": "the same",
    "ISEMAIL_ERR_FWS_CRLF_X2": "the same",
}
"""Diagnoses of addresses that are accepted only because they are trimmed."""

REFUSED_DOMAINS = {
    "test@xn--example.com": "its A-label decodes to a character that IDNA 2008 disallows (RFC 5891 §5.4)",
    "test@io": "a top-level domain, though one that had an MX when the corpus was made",
    "test@123.123.123.x123": "no top-level domain ends in a digit: it is an IP address, mistyped",
    "x@" + "x23456789." * 25 + "x2": "the same",
}
"""Addresses that the corpus classifies as deliverable, and that are rejected."""


def _address(text: str) -> str:
    """Decode control characters, which the corpus writes as pictures (U+2400 plus the character's number)."""
    return "".join(chr(ord(c) - 0x2400) if 0x2400 <= ord(c) < 0x2420 else c for c in text)


def _cases() -> list[Any]:
    root = os.environ.get("POSTROAD_CORPORA")
    if not root:
        skip = pytest.mark.skip(reason="POSTROAD_CORPORA does not name the folder of conformance data")
        return [pytest.param("", "", "", marks=skip, id="isemail")]
    cases = []
    for name in FILES:
        tests = ET.parse(Path(root) / "isemail" / "test" / name).getroot()  # noqa: S314  (a file of our own)
        for test in tests.iter("test"):
            values = (_address(test.findtext("address") or ""), test.findtext("category"), test.findtext("diagnosis"))
            cases.append(pytest.param(*values, id=f"{name.removesuffix('.xml')}-{test.get('id')}"))
    return cases


def _judge(address: str) -> tuple[str | None, str | None]:
    """Return the normalised address, or the reason of the error."""
    try:
        return normalise_address(address), None
    except DataError as error:
        return None, error.message


@pytest.mark.parametrize(("address", "category", "diagnosis"), _cases())
def test_an_address_is_judged_as_the_corpus_does(address: str, category: str, diagnosis: str) -> None:
    kept, reason = _judge(address)
    if kept is None:
        assert reason
        assert category not in DELIVERABLE or address in REFUSED_DOMAINS, reason
        assert category != "ISEMAIL_RFC5321" or diagnosis in REFUSED_ON_PURPOSE, reason
    elif category in DELIVERABLE:
        assert address not in REFUSED_DOMAINS
        assert kept == address.lower()
    else:
        assert diagnosis in ACCEPTED_TRIMMED
        assert address != address.strip()
        assert kept == address.strip().lower()


def test_the_corpus_is_all_there() -> None:
    if os.environ.get("POSTROAD_CORPORA"):
        assert len(_cases()) == 164 + 279
    else:
        pytest.skip("POSTROAD_CORPORA does not name the folder of conformance data")
