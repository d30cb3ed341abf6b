"""Columns with a name that Jinja or Python reserves: the text has their value, or the template does not compile."""

from __future__ import annotations

import builtins
import keyword

import pytest
from jinja2.defaults import DEFAULT_NAMESPACE

from postroad.errors import ConfigError, DataError
from postroad.mail.template import compile_template
from postroad.mail.vocabulary import ALLOWED_FILTERS, ALLOWED_TESTS

CONSTANTS = {"true", "false", "none"}
OF_JINJA = {
    "self",
    "super",
    "loop",
    "caller",
    "varargs",
    "kwargs",
    "lipsum",
    "recursive",
    "context",
    "environment",
    "_",
}
NAMES = sorted(
    {
        *(name.lower() for name in (*keyword.kwlist, *keyword.softkwlist, *dir(builtins)) if name.isidentifier()),
        *DEFAULT_NAMESPACE,
        *OF_JINJA,
        *(word for word in (*ALLOWED_FILTERS, *ALLOWED_TESTS) if word.isidentifier()),
        *("endif", "endfor", "elif", "block", "set", "macro", "call", "filter", "include", "raw", "fields", "template"),
    }
)
USES = [
    ("{{ %s }}", "value"),
    ("{{ %s|upper }}", "VALUE"),
    ("{{ %s|default('x') }}", "value"),
    ("{{ 'a ' ~ %s }}", "a value"),
    ("{{ %s.upper() }}", "VALUE"),
    ("{{ %s[0] }}", "v"),
    ("{{ 'x' if (not city) else %s }}", "value"),
    ("{% block b %}{{ %s }}{% endblock %}", "value"),
    ("{% if city %}{{ %s }}{% endif %}", "value"),
]


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_column_is_shown_or_the_template_names_it(name: str, html: bool) -> None:
    for use, shown in USES:
        source = use.replace("%s", name)
        if source == "{{ not[0] }}":
            continue  # A list follows the operator.
        if name in CONSTANTS or name == "not":
            with pytest.raises(ConfigError, match=f"a column {name} cannot be a merge field") as caught:
                compile_template(f"\n{source}", name="t", html=html)
            assert caught.value.where == "t, line 2"
            continue
        template = compile_template(source, name="t", html=html)
        assert name in template.fields
        assert template.render({name: "value", "city": "Rome"}) == shown, source


@pytest.mark.parametrize("name", sorted(set(NAMES) - CONSTANTS - {"not"}))
def test_a_column_that_a_recipient_lacks_is_missed_by_its_name(name: str) -> None:
    for source in (f"{{{{ {name} }}}}", f"{{{{ {name}|upper }}}}"):
        with pytest.raises(DataError, match=f"'{name}' is undefined"):
            compile_template(source, name="t").render({})


@pytest.mark.parametrize(
    "source",
    [
        "{{ range(3)|join }}",
        "{{ dict(a=0).a }}12",
        "{% set n = namespace(a=0) %}{% set n.a = '01' %}{{ n.a }}2",
        "{% set c = cycler('0', '1', '2') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}",
        "{% set j = joiner('1') %}0{{ j() }}{{ j() }}2",
        "{% for range in range(3) %}{{ range }}{% endfor %}",
        "{% macro m(dict) %}{{ dict }}{% endmacro %}{{ m(0) }}{{ dict(a='12').a }}",
        "{% macro range(x) %}01{{ x }}{% endmacro %}{{ range(2) }}",
        "{% set dict = '0' %}{{ dict }}{{ dict(a='12').a }}",
        "{% for x in range(3) %}{{ loop.index0 }}{% endfor %}",
        "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}012{% endcall %}",
        "{% macro m() %}{{ varargs|join }}{{ kwargs.z }}{{ 'x' if caller is defined }}{% endmacro %}{{ m(0, 1, z=2) }}",
        "{% block b %}012{% endblock %}{% if false %}{{ self.b() }}{% endif %}",
        "{% set self = '012' %}{{ self }}",
        "{% if true and not false %}012{% endif %}",
        "{% set on = true %}{{ '012' if on and nobody is not defined }}",
    ],
)
@pytest.mark.parametrize("fields", [{}, dict.fromkeys(NAMES, "value")])
def test_words_of_jinja_mean_what_they_mean_whatever_the_columns(source: str, fields: dict[str, str]) -> None:
    assert compile_template(source, name="t").render(fields) == "012"


def test_a_function_and_a_column_of_one_name_are_both_had() -> None:
    template = compile_template("{% for x in range(2) %}{{ range }}{{ dict(a=x).a }}{{ dict }}{% endfor %}", name="t")
    assert template.fields == {"range", "dict"}
    assert template.render({"range": "r", "dict": "d"}) == "r0dr1d"


def test_self_with_the_name_of_a_block_is_the_block() -> None:
    source = "{% block title %}T{% endblock %}{{ self.title() }}{{ self.upper() }}{{ self['lower']() }}"
    template = compile_template(source, name="t")
    assert template.render({"self": "Me"}) == "TTMEme"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("{% for x in 'ab' %}{{ loop }}{% endfor %}", "loop"),
        ("{% for x in 'ab' %}{{ loop|upper }}{% endfor %}", "loop"),
        ("{% for x in 'ab' %}{{ 'a' ~ loop }}{% endfor %}", "loop"),
        ("{% for x in 'ab' %}{{ loop|default('x') }}{% endfor %}", "loop"),
        ("{% macro m() %}{{ caller }}{% endmacro %}", "caller"),
        ("{% macro m() %}{{ kwargs }}{% endmacro %}", "kwargs"),
        ("{% macro m() %}{{ varargs }}{% endmacro %}", "varargs"),
        ("{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ kwargs }}{% endcall %}", "kwargs"),
        ("{{ city or none }}", "none"),
        ("{{ city if city else true }}", "true"),
        ("{{ city|default(none) }}", "none"),
        ("{% if not %}x{% endif %}", "not"),
    ],
)
def test_writing_a_reserved_word_is_an_error_that_names_it(source: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"the name {name} .*column {name} cannot be a merge field") as caught:
        compile_template(source, name="t")
    assert "Rename the column" in (caught.value.remedy or "")


def test_a_loop_in_a_block_and_the_else_of_a_loop_see_the_column() -> None:
    in_block = "{% for x in [1] %}{% block b %}{{ loop }}{% endblock %}{% endfor %}"
    source = "{% for x in [] %}{% else %}{{ loop }}{% endfor %}" + in_block
    assert compile_template(source, name="t").render({"loop": "L"}) == "LL"
