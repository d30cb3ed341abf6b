"""Templates: forbidden operations, errors, and limits of their running time."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.errors import ConfigError, DataError
from postroad.mail.template import compile_template

FIELDS = {"name": "Ada", "n": 3, "tags": ["a", "b"], "deep": {"list": [1]}, "html": "<b>&\"'</b>"}


def render(source: str, *, html: bool = False) -> str:
    return compile_template(source, name="campaign welcome, step hello, text", html=html).render(dict(FIELDS))


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("Hello {{ name }}", "Hello Ada"),
        ("Hello {{ name|upper }}\n", "Hello ADA\n"),
        ("{{ nobody|default('you') }}", "you"),
        ("{% if nobody is defined %}x{% else %}y{% endif %}", "y"),
        ("{% for tag in tags %}{{ loop.index }}/{{ loop.length }}{{ tag }} {% endfor %}", "1/2a 2/2b "),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% else %}none{% endfor %}", "a1"),
        ("{% for x in [] %}x{% else %}none{% endfor %}", "none"),
        ("{% for x in tags if x == 'b' %}{{ loop.last }}{{ x }}{% endfor %}", "Trueb"),
        ("{% for x in [[1, [2]], [3]] recursive %}{{ loop(x) if x is not number else x }}{% endfor %}", "123"),
        ("{% macro hi(x) %}hi {{ x }}{% endmacro %}{{ hi(name) }}", "hi Ada"),
        ("{{ range(3)|join(',') }}", "0,1,2"),
        ("{% set t = namespace(n=0) %}{% for x in range(4) %}{% set t.n = t.n + x %}{% endfor %}{{ t.n }}", "6"),
        ("{{ '-' * 20 }}{{ 2 ** 10 }}{{ '%03d' % n }}{{ '{:>4}'.format(n) }}", "-" * 20 + "1024003   3"),
    ],
)
def test_what_templates_are_for(source: str, rendered: str) -> None:
    assert render(source) == rendered


@given(st.text(st.characters(codec="utf-8")))
def test_html_escapes_what_a_field_holds_and_text_does_not(value: str) -> None:
    html = compile_template('<a href="{{ x }}">{{ x }}</a>', name="t", html=True).render({"x": value})
    inner = html.removeprefix('<a href="').removesuffix("</a>")
    assert inner.count('"') == 1
    assert "<" not in inner
    assert inner.count(">") == 1
    assert compile_template("{{ x }}", name="t").render({"x": value}) == value


def test_a_field_is_no_template() -> None:
    assert compile_template("{{ x }}", name="t").render({"x": "{{ 7 * 7 }}{% for %}"}) == "{{ 7 * 7 }}{% for %}"


ESCAPES = [
    "{{ name.__class__ }}",
    "{{ name.__class__.__mro__ }}",
    "{{ name['__class__'] }}",
    "{{ name|attr('__class__') }}",
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ '{0.__class__}'.format(name) }}",
    "{{ '{0.__class__.__mro__}'.format_map({'0': name}) }}",
    "{{ ('{0.__class__}'|attr('format'))(name) }}",
    "{{ [name]|map(attribute='__class__')|list }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ range.__self__ }}",
    "{{ joiner.__init__.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
    "{{ name.upper.__self__ }}",
    "{{ (1).__class__ }}",
    "{{ tags.append('x') }}",
    "{{ tags.clear() }}",
    "{{ tags.sort() }}",
    "{{ deep.update({'x': 1}) }}",
    "{{ deep.list.append(2) }}",
    "{{ deep.pop('list') }}",
    "{% do tags.append('x') %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'base' %}",
    "{{ open('/etc/passwd') }}",
    "{{ __import__('os') }}",
    "{{ config }}{{ request }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_gets_at_nothing_but_its_fields(source: str) -> None:
    fields = {**FIELDS, "tags": ["a", "b"], "deep": {"list": [1]}}
    rendered = None
    with suppress(ConfigError, DataError):
        rendered = compile_template(source, name="t").render(fields)
    assert rendered in (None, "", "[]", "[Undefined]")
    assert fields == {**FIELDS, "tags": ["a", "b"], "deep": {"list": [1]}}


WHERE = "campaign welcome, step hello, text"


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("Hello {{ nobody }}", 1, "'nobody' is undefined"),
        ("Hello\n\n{{ nobody }}\nx\n", 3, "'nobody' is undefined"),
        ("Hello\n{{ nobody|upper }}", 2, "'nobody' is undefined"),
        ("Hello\n{{ nobody|length }}", 2, "'nobody' is undefined"),
        ("\n{{ nobody|join(', ') }}", 2, "'nobody' is undefined"),
        ("\n{{ nobody ~ 'x' }}", 2, "'nobody' is undefined"),
        ("\n{{ 'x' if nobody else 'y' }}", 2, "'nobody' is undefined"),
        ("\n\n{{ nobody.first }}", 3, "'nobody' is undefined"),
        ("\n\n{{ name.first }}", 3, "has no attribute 'first'"),
        ("\n\n{{ deep.nothing }}", 3, "has no attribute 'nothing'"),
        ("{% for tag in tags %}\n{{ tag }}\n{{ tagg }}{% endfor %}", 3, "'tagg' is undefined"),
        ("{% for x in nobody %}{% endfor %}", 1, "'nobody' is undefined"),
        ("{% macro m(x) %}\n{{ nobody }}\n{% endmacro %}\n\n{{ m(1) }}", 2, "'nobody' is undefined"),
        ("{% block b %}\n{{ nobody }}{% endblock %}", 2, "'nobody' is undefined"),
        ("x\n{{ n / 0 }}", 2, "division by zero"),
        ("x\n{{ n + name }}", 2, "unsupported operand"),
        ("x\n{{ name() }}", 2, "not callable"),
        ("x\n{{ name|dictsort }}", 2, "items"),
        ("x\n{{ name|xmlattr }}", 2, "items"),
        ("x\n{{ tags|batch(0)|first|first.x }}", 2, ""),
        ("x\n{{ name.__class__ }}", 2, "unsafe"),
        ("x\n{{ tags.append(1) }}", 2, "unsafe"),
    ],
)
@pytest.mark.parametrize("html", [False, True])
def test_a_failure_names_template_line_and_field(source: str, line: int, reason: str, html: bool) -> None:
    with pytest.raises((DataError, ConfigError)) as caught:
        render(source, html=html)
    assert caught.value.where == f"{WHERE}, line {line}"
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("{{ name", 1),
        ("x\n{% if %}", 2),
        ("x\ny\n{% for x in y %}\n{% endif %}", 4),
        ("x\n{{ name|no_such_filter }}", 2),
        ("x\n{{ name is no_such_test }}", 2),
        ("x\n{% no_such_tag %}", 2),
        ("x\n{{ '", 2),
    ],
)
def test_a_syntax_error_names_template_and_line(source: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_template(source, name=WHERE)
    assert caught.value.where == f"{WHERE}, line {line}"
    assert caught.value.message


@pytest.mark.parametrize("source", ["{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{{ " + "9" * 5000 + " }}"])
def test_a_template_that_jinja_rejects_is_a_config_error(source: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_template(source, name=WHERE)
    assert caught.value.where is not None
    assert caught.value.where.startswith(WHERE)


ENDLESS = [
    "{% for x in range(1000000000) %}{% endfor %}",
    "{% for x in range(99999) %}{% for y in range(99999) %}{% endfor %}{% endfor %}",
    "{% for x in range(99999) %}{% for y in range(99999) %}x{% endfor %}{% endfor %}",
    "{% set xs = range(5000)|list %}{% for a in xs %}{% for b in xs %}{{ a }}{% endfor %}{% endfor %}",
    "{% for a in tags * 500 %}{% for b in tags * 500 %}{% for c in tags * 500 %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% block b %}{% for j in range(99999) %}{% endfor %}{% endblock %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "{% for x in [1] recursive %}{{ loop(range(9999)) if loop.depth < 4 }}{% endfor %}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ n ** 999999999 }}",
    "{{ 10 ** (8 ** 8) }}",
    "{{ 'x' * 10 ** 11 }}",
    "{{ [0] * 10 ** 11 }}",
    "{{ 10 ** 11 * 'x' }}",
    "{{ 'x' * 99999999 * 99999999 }}",
    "{% set s = namespace(s='x') %}{% for i in range(60) %}{% set s.s = s.s + s.s %}{% endfor %}{{ s.s }}",
]


@pytest.mark.parametrize("source", ENDLESS)
@pytest.mark.timeout(30)
def test_no_template_runs_for_ever(source: str) -> None:
    began = time.process_time()
    with pytest.raises(DataError) as caught:
        render(source)
    assert time.process_time() - began < 5
    assert caught.value.where is not None
    assert caught.value.where.startswith(WHERE)
