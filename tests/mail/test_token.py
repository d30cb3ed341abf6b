"""Tokens: only a token that a key of the ring signed for a purpose is valid for it."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr

from postroad.mail.token import Purpose, TokenSigner
from tests.mail.conftest import SIGNER

TOUCHES = st.integers(0, 2**64 - 1)
PURPOSES = st.sampled_from(Purpose)
ALPHABET = string.ascii_lowercase + string.digits + "-"


@given(TOUCHES, PURPOSES)
def test_what_was_signed_is_read(touch_id: int, purpose: Purpose) -> None:
    token = SIGNER.sign(purpose, touch_id)
    assert SIGNER.read(purpose, token) == touch_id
    assert re.fullmatch(r"[0-9a-f]{1,16}-[0-9a-f]{20}", token)
    assert SIGNER.sign(purpose, touch_id) == token


@given(TOUCHES, PURPOSES, PURPOSES)
def test_another_purpose_does_not_read_it(touch_id: int, purpose: Purpose, other: Purpose) -> None:
    assume(purpose is not other)
    assert SIGNER.read(other, SIGNER.sign(purpose, touch_id)) is None


@given(TOUCHES, PURPOSES, st.text(min_size=1, max_size=40))
def test_another_key_does_not_read_it(touch_id: int, purpose: Purpose, key: str) -> None:
    assume(key != "a key that is only used in tests")
    assert SIGNER.read(purpose, TokenSigner(SecretStr(key)).sign(purpose, touch_id)) is None


@given(TOUCHES, PURPOSES, st.data())
def test_no_character_of_it_can_be_changed(touch_id: int, purpose: Purpose, data: st.DataObject) -> None:
    token = SIGNER.sign(purpose, touch_id)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.one_of(st.sampled_from(ALPHABET), st.characters(codec="utf-8")))
    assume(other.lower() != token[at] or not other.isascii())
    for tampered in (
        token[:at] + other + token[at + 1 :],
        token[:at] + token[at + 1 :],
        token[:at] + "".join(reversed(token[at : at + 2])) + token[at + 2 :],
    ):
        if tampered not in (token, f"{token} ", f" {token}"):
            assert SIGNER.read(purpose, tampered) is None, tampered


@pytest.mark.parametrize(
    "spelling", ["0{}", "+{}", "0x{}", " {}x", "-{}", "{}-", "{}=", "{}\x00", "\uff11{}", "1_{}", "{}a", "\u202e{}"]
)
def test_one_token_has_one_spelling(spelling: str) -> None:
    for touch_id in (1, 0x1F, 0xABC):
        token = spelling.format(SIGNER.sign(Purpose.BOUNCE, touch_id))
        assert SIGNER.read(Purpose.BOUNCE, token) is None


@pytest.mark.parametrize("spelling", ["0{}", "0x{}", "+{}", "{}_", "0_{}"])
def test_a_number_has_one_spelling_too(spelling: str) -> None:
    number, _, signature = SIGNER.sign(Purpose.BOUNCE, 0x1F).partition("-")
    assert SIGNER.read(Purpose.BOUNCE, f"{spelling.format(number)}-{signature}") is None
    assert SIGNER.read(Purpose.BOUNCE, f"1_f-{signature}") is None
    assert SIGNER.read(Purpose.BOUNCE, f"\uff11f-{signature}") is None


def test_a_digit_of_elsewhere_is_another() -> None:
    token = next(token for n in range(500) if "1" in (token := SIGNER.sign(Purpose.BOUNCE, n)).partition("-")[2])
    number, _, signature = token.partition("-")
    assert SIGNER.read(Purpose.BOUNCE, number + "-" + signature.replace("1", "\uff11")) is None


@given(TOUCHES, PURPOSES, st.data())
def test_its_case_does_not_matter(touch_id: int, purpose: Purpose, data: st.DataObject) -> None:
    token = SIGNER.sign(purpose, touch_id)
    folded = "".join(data.draw(st.sampled_from((c.lower(), c.upper()))) for c in token)
    assert SIGNER.read(purpose, folded) == touch_id
    assert SIGNER.read(purpose, f" {folded}\r\n") == touch_id


@given(
    st.one_of(st.text(), st.text(ALPHABET), st.from_regex(r"[0-9a-f]{0,20}-[0-9a-f]{18,22}", fullmatch=True)), PURPOSES
)
def test_what_comes_from_elsewhere_is_none(text: str, purpose: Purpose) -> None:
    assert SIGNER.read(purpose, text) is None


def test_the_key_is_not_shown() -> None:
    assert "a key" not in repr(SIGNER) + str(vars(SIGNER))


@given(TOUCHES, PURPOSES)
def test_the_first_key_of_a_ring_signs_and_all_verify(touch_id: int, purpose: Purpose) -> None:
    old, new, stranger = (SecretStr(name) for name in ("old", "new", "stranger"))
    ring = TokenSigner(new, old)
    assert ring.sign(purpose, touch_id) == TokenSigner(new).sign(purpose, touch_id)
    assert ring.read(purpose, TokenSigner(new).sign(purpose, touch_id)) == touch_id
    assert ring.read(purpose, TokenSigner(old).sign(purpose, touch_id)) == touch_id
    assert ring.read(purpose, TokenSigner(stranger).sign(purpose, touch_id)) is None
    assert TokenSigner(old).read(purpose, ring.sign(purpose, touch_id)) is None
