"""What the words of a template may name: no method, no object of the program, and no word that is not allowed."""

from __future__ import annotations

import pytest

from postroad.errors import ConfigError, DataError
from postroad.mail.template import compile_template
from tests.attacks.templates import FIELDS


@pytest.mark.parametrize(
    ("source", "line", "word", "instead"),
    [
        ("x\n{{ name|pprint }}", 2, "the filter pprint", "tojson"),
        ("x\n{{ name|urlize }}", 2, "the filter urlize", "<a href"),
        ("\n\n{{ name|no_such }}", 3, "the filter no_such", "upper"),
        ("{% if x %}\n{{ name|no_such }}{% endif %}", 2, "the filter no_such", "upper"),
        ("{% filter pprint %}{% endfilter %}", 1, "the filter pprint", "tojson"),
        ("\n{{ name is filter('e') }}", 2, "the test filter", "defined"),
        ("\n{{ name.expandtabs(9999999) }}", 2, "the method expandtabs", "replace"),
        ("\n{{ name.encode() }}", 2, "the method encode", "urlencode"),
        ("\n{% block b scoped %}{% endblock %}", 2, "{% block … scoped %}", "macro with parameters"),
        ("\n{% include 'x' %}", 2, "{% include %}", "into the template"),
        ("\n{% import 'x' as x %}", 2, "{% import %}", "into the template"),
        ("\n{% from 'x' import y %}", 2, "{% from %}", "into the template"),
        ("\n{% extends 'x' %}", 2, "{% extends %}", "into the template"),
    ],
)
def test_a_word_that_is_not_allowed_is_named_with_its_line(source: str, line: int, word: str, instead: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_template(source, name="welcome.txt")
    assert caught.value.where == f"welcome.txt, line {line}"
    assert caught.value.message == f"{word} is not available in templates"
    assert instead in (caught.value.remedy or "")


UNCALLED = [
    "{{ name.join }}",
    "{{ [name.join] }}",
    "{{ {'a': (name.upper,)} }}",
    "{{ name.join ~ '' }}",
    "{{ name.join|string }}",
    "{{ '%s' % name.join }}",
    "{{ '{}'.format(name.join) }}",
    "{{ name['join'] }}",
    "{{ name|attr('join') }}",
    "{{ (name|trim).join }}",
    "{{ name.upper().strip }}",
    "{{ name.split(' ')[0].title }}",
    "{{ name.split(' ').index }}",
    "{{ name[1:].lower }}",
    "{{ (name|default('x')).upper }}",
    "{% if name.isupper %}x{% endif %}",
    "{% macro m() %}{% endmacro %}{{ m }}",
    "{% macro m() %}{% endmacro %}{{ m|upper }}",
]


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("source", UNCALLED)
def test_a_method_that_is_not_called_is_an_error_when_the_template_is_compiled(source: str, html: bool) -> None:
    with pytest.raises(ConfigError, match=r"used as a value: \(\) is missing|macro m is shown as text") as caught:
        compile_template(f"\n{source}", name="t", html=html)
    assert caught.value.where == "t, line 2"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{% set item = {'title': 'T', 'index': 1} %}{{ item.title }}{{ item['index'] }}", "T1"),
        ("{% for x in 'ab' %}{{ loop.index }}{% endfor %}", "12"),
        ("{% set n = namespace(count=3) %}{{ n.count }}", "3"),
        ("{% block title %}T{% endblock %}{{ self.title() }}", "TT"),
        ("{{ name.upper()[0].lower() }}{{ ','.join(name.split('d')) }}", "aA,a"),
    ],
)
def test_what_is_named_as_a_method_and_is_none_is_shown(source: str, shown: str) -> None:
    assert compile_template(source, name="t").render({"name": "Ada"}) == shown


OBJECTS = [
    "{% set n = name %}{{ n.join }}",
    "{{ joiner() }}",
    "{{ cycler(1) }}",
    "{{ namespace() }}",
    "{% for i in [1] %}{% set l = loop %}{{ l }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{% set n = m %}{{ n }}",
]


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("source", OBJECTS)
def test_no_mail_shows_an_object_of_the_program(source: str, html: bool) -> None:
    with pytest.raises(DataError, match="uses what templates may not use"):
        compile_template(source, name="t", html=html).render(dict(FIELDS))


def test_what_templates_do_with_objects_and_numbers_stays_possible() -> None:
    source = (
        "{% set s = joiner('-') %}{% set n = namespace(i=2**63) %}{% macro m(f) %}{{ f(1) }}{% endmacro %}"
        "{% macro g(x) %}{{ s() }}{{ n.i }}{{ s() }}{{ x }}{% endmacro %}{{ m(g) }}{{ 'a'.join(['1', '2']) }}"
        "{% block b %}{{ -18446744073709551615 }}{% endblock %}{{ self.b() }}"
    )
    rendered = compile_template(source, name="t").render({})
    assert rendered == "9223372036854775808-11a2-18446744073709551615-18446744073709551615"
