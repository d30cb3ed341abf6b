"""A precompiled body decodes to the same text as one that is encoded line by line, for any value."""

from __future__ import annotations

import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.mail.body import message_entity
from postroad.mail.dkim import relaxed_lines
from postroad.mail.precompiled_body import PrecompiledBody, precompile
from postroad.mail.template import MessageTemplate, compile_template

SLOTS = st.sampled_from(["{{ a }}", "{{ b }}", "{{ a|default('nobody') }}", "{{ unsubscribe_url }}"])
LITERALS = st.one_of(
    st.text(st.sampled_from(" .=%\tab\n-é\u2028"), max_size=12),
    st.text(st.characters(codec="utf-8", exclude_characters="{}"), max_size=90),
    st.sampled_from(["\n.", "..", "%b", "%", "word " * 40, " \n", "\t\n"]),
)
TEMPLATE = st.lists(st.one_of(SLOTS, LITERALS), min_size=1, max_size=14).map("".join)
VALUES = st.one_of(
    st.sampled_from(
        ["Ada", "Köln", "a b", "", " ", "a  b", ".", ".x", "=", "a\nb", "x" * 36, "x" * 37, "é" * 12, "é" * 13]
    ),
    st.text(max_size=40),
)


def body_of(source: str, *, html: bool) -> tuple[MessageTemplate, PrecompiledBody | None]:
    template = compile_template(source, name="t", html=html)
    plain = compile_template("", name="t")
    entity = message_entity(plain, template, []) if html else message_entity(template, None, [])
    return template, precompile(entity.body)


@given(TEMPLATE, VALUES, VALUES, st.booleans())
def test_what_fits_is_read_as_it_was_rendered(source: str, a: str, b: str, html: bool) -> None:
    fields = {"a": a, "b": b, "unsubscribe_url": "https://mail.example.com/u/1e240-0123456789abcdef0123"}
    template, layout = body_of(source, html=html)
    values = layout.values(fields) if layout is not None else None
    if layout is None or values is None:
        return
    wire = layout.pattern % values
    assert layout.canonical % values == relaxed_lines(wire)
    part = wire
    if html:
        part = wire.partition(b"text/html; charset=utf-8\r\n")[2].partition(b"\r\n\r\n")[2]
        part = part.removesuffix(b"\r\n--=_postroad_alternative--\r\n")
    assert part.isascii()
    assert part.count(b"\n") == part.count(b"\r") == part.count(b"\r\n")
    assert all(len(line) <= 76 for line in part.split(b"\r\n"))
    rendered = template.template.render(fields)
    assert quopri.decodestring(part).replace(b"\r\n", b"\n") == rendered.encode(errors="replace")


@pytest.mark.parametrize("value", ["Ada", "Köln", "Acme and Sons", "x" * 36, "é" * 6, 7, True, 1.5])
def test_what_most_people_are_called_fits(value: object) -> None:
    for html in (False, True):
        _, layout = body_of("Dear {{ a }},\n", html=html)
        assert layout is not None
        assert layout.values({"a": value}) is not None


@pytest.mark.parametrize(
    "value", ["", " Ada", "Ada ", "A  B", "a\nb", "a\tb", "1=1", ".", "x" * 37, "é" * 7, "\ud800", "\x7f"]
)
def test_what_would_need_a_look_at_its_neighbours_does_not(value: str) -> None:
    _, layout = body_of("Dear {{ a }},\n", html=False)
    assert layout is not None
    assert layout.values({"a": value}) is None


def test_a_number_is_not_taken_for_a_truth() -> None:
    _, layout = body_of("{{ a }}", html=False)
    assert layout is not None
    assert [layout.pattern % layout.values({"a": value}) for value in (1, True, 1.0)] == [b"1", b"True", b"1.0"]


def test_logic_and_bodies_without_a_field_have_no_layout() -> None:
    assert body_of("{% if a %}{{ a }}{% endif %}", html=False)[1] is None
    assert body_of("the same for all", html=False)[1] is None


def test_a_missing_field_is_said() -> None:
    _, layout = body_of("{{ a }}", html=False)
    assert layout is not None
    with pytest.raises(KeyError):
        layout.values({})


def test_values_of_other_types_are_rendered_by_the_templates() -> None:
    _, layout = body_of("{{ a }}", html=False)
    assert layout is not None
    assert layout.values({"a": ["x"]}) is None
