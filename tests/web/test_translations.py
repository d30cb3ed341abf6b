"""Every page in every language, and the language that is asked for."""

from __future__ import annotations

import pytest

from postroad.web.body import MAX_FIELDS, form_fields
from postroad.web.translations import Notice, choose_language, read_translations

BOOK = read_translations()
PART = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("DE-ch", "de"),
        ("fr-FR,fr;q=0.9,en;q=0.8", "fr"),
        ("nl,es;q=0.5,en;q=0.4", "es"),
        ("en;q=0.4, de;q=0.9", "de"),
        ("de;q=0, fr;q=0.1", "fr"),
        ("nl, pt-BR", "en"),
        ("*", "en"),
        ("de;q=2, fr;q=x, es;level=1", "en"),
        ("x" * 10_000 + ",de", "en"),
        (";;,,=;q", "en"),
    ],
)
def test_the_best_language_that_is_there(header: str, language: str) -> None:
    assert choose_language(header, BOOK) == language


def test_every_language_has_all_words() -> None:
    assert set(BOOK) == {"en", "de", "fr", "es"}
    for words in BOOK.values():
        assert set(words) == set(Notice)
        assert all(one.title and one.text for one in words.values())
        assert [notice for notice in Notice if words[notice].button] == [Notice.ASK]
    assert len({book[Notice.DONE].text for book in BOOK.values()}) == len(BOOK)


@pytest.mark.parametrize(
    ("content_type", "body", "fields"),
    [
        ("application/x-www-form-urlencoded", b"a=1&b=&a=2", {"a": "1", "b": ""}),
        ("Application/X-WWW-Form-Urlencoded; charset=utf-8", b"a=%C3%A9", {"a": "é"}),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * (MAX_FIELDS + 1)), {}),
        ("text/plain", b"a=1", {}),
        ("", b"a=1", {}),
        ("multipart/form-data; boundary=x", b"", {}),
        ("multipart/form-data; boundary=x", PART, {"a": "1"}),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n1\r\n--x--", {}),
        ("multipart/form-data; boundary=\xe9", b"--x", {}),
        ("multipart/form-data; boundary=" + "x" * 1000, b"", {}),
    ],
)
def test_forms_of_either_encoding_are_read_and_nothing_else_is(
    content_type: str, body: bytes, fields: dict[str, str]
) -> None:
    assert form_fields(content_type, body) == fields
