"""A form that a stranger posts costs no more than its length, and raises nothing."""

from __future__ import annotations

import pytest

from postroad.web.body import MAX_BODY_BYTES, MAX_FIELDS, form_fields
from tests.attacks.limits import cost_ratio

PARTS = [
    "((((",
    '(")',
    "name=((((",
    'name="',
    '""',
    ";a=",
    "\\",
    "<",
    "%",
    "=?utf-8?q?",
    "\t",
    ";name=",
    "name*0=a;",
    "\r\n ",
    "--b",
]
BEFORE = ["", "form-data; ", "form-data; name=", 'form-data; name="a"; x=']
FIELDS = ["Content-Disposition", "Content-Type", "Content-Transfer-Encoding", "To", "A"]


def form(field: str, before: str, part: str, length: int = MAX_BODY_BYTES) -> bytes:
    text = f"--b\r\n{field}: {before}{part * (length // len(part))}"[: length - 16]
    return f"{text}\r\n\r\nx\r\n--b--\r\n".encode()


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("part", PARTS)
def test_a_hostile_part_raises_nothing(field: str, before: str, part: str) -> None:
    fields = form_fields("multipart/form-data; boundary=b", form(field, before, part))
    assert len(fields) <= MAX_FIELDS


@pytest.mark.parametrize("part", PARTS)
def test_the_cost_of_a_form_grows_with_its_length(part: str) -> None:
    def read(length: int) -> None:
        for _ in range(20):
            form_fields(
                "multipart/form-data; boundary=b", form("Content-Disposition", "form-data; name=", part, length)
            )

    assert cost_ratio(read, 8_000, 80_000) < 30


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=" + "(" * 250,
        "multipart/form-data; boundary=" + ('"a*1*=b;' * 400)[:270],
        "multipart/form-data" + ";" * 280,
    ],
)
def test_a_hostile_content_type_raises_nothing(content_type: str) -> None:
    assert form_fields(content_type, b"--b\r\n" * 1_000) == {}


def test_a_form_has_so_many_fields_and_no_more() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="%d"\r\n\r\nx\r\n'
    body = b"".join(part % number for number in range(100)) + b"--b--"
    assert list(form_fields("multipart/form-data; boundary=b", body)) == [str(number) for number in range(MAX_FIELDS)]
