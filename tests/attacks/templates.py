"""Templates that take time or memory without end, and the budgets of a merge."""

from __future__ import annotations

import time

from postroad.errors import ConfigError, DataError
from postroad.mail.template import compile_template

CPU_S = 2.0
"""Processor time of one rendering. Unloaded it is a tenth; without a budget, minutes or for ever."""

MEMORY_MIB = 220

FIELDS = {"name": "Ada", "word": "a" * 9_000, "words": "ab " * 3_000, "tags": '<b>&"' * 100}

FOOT = "{{ unsubscribe_url }} {{ postal_address }}"


def endless(body: str, before: str = "") -> str:
    return before + "{% for i in range(99999) %}" + body + "{% endfor %}"


def in_namespace(value: str) -> str:
    return endless("{% set s.s = " + value + " %}", "{% set s = namespace(s='x') %}")


LARGE = [
    '{{ "x"|center(3000000000) }}',
    '{{ "x".center(3000000000) }}',
    '{{ "x".ljust(3000000000) }}',
    '{{ "x".rjust(3000000000) }}',
    '{{ "x".zfill(3000000000) }}',
    '{{ "x"|center(width=3000000000) }}',
    '{{ ["x"]|map("center", 3000000000)|list }}',
    '{{ "%3000000000d" % 1 }}',
    '{{ "%.3000000000f" % 1 }}',
    '{{ "%*d" % (3000000000, 1) }}',
    '{{ "%3000000000d"|format(1) }}',
    '{{ "%(a)3000000000d"|format(a=1) }}',
    '{{ "%(a b)3000000000d" % {"a b": 1} }}',
    '{{ "{:3000000000}".format(1) }}',
    '{{ "{:{}}".format(1, 3000000000) }}',
    '{{ "{a:3000000000}".format_map({"a": 1}) }}',
    '{{ "x" * 3000000000 }}',
    "{{ [0] * 3000000000 }}",
    '{{ "x"|indent(3000000000, true) }}',
    '{{ ("x\n" * 1000)|indent("y" * 900000) }}',
    '{{ ("x" * 999999)|replace("x", "y" * 999999) }}',
    '{{ ("x" * 999999).replace("", "y" * 999999) }}',
    '{{ range(99999)|join("y" * 999999) }}',
    '{{ ("y" * 999999).join("x" * 999999) }}',
    '{{ ("x" * 999999)|wordwrap(1) }}',
    '{{ "x y"|wordwrap(1, true, "y" * 999999) }}',
    "{{ [1]|batch(3000000000, 0)|list }}",
    "{{ [1]|slice(3000000000)|list }}",
    "{{ [[1] * 9000] * 9000 }}",
    "{{ ([[1] * 300] * 300)|sum(start=[]) }}",
    "{{ 1.5|round(-3000000000) }}",
    '{{ 1.5|round(3000000000, "floor") }}',
    "{{ [1]|tojson(3000000000) }}",
    "{{ [1]|tojson(indent=3000000000) }}",
    '{{ ("9" * 999999)|int }}',
    '{{ ("f" * 999999)|int(0, 16) }}',
    '{{ ("9" * 999999)|float }}',
    "{{ 9 ** (9 ** 9) }}",
    '{{ "x" ~ "y" * 3000000000 }}',
    '{% autoescape "x" * 3000000000 %}{% endautoescape %}',
    '{% autoescape "x"|center(3000000000) %}{% endautoescape %}',
    '{% set a = "x" * 3000000000 %}',
    '{% if "x" * 3000000000 %}{% endif %}',
    '{% for i in "x" * 3000000000 %}{% endfor %}',
    '{% macro m(a="x" * 3000000000) %}{{ a }}{% endmacro %}{{ m() }}',
    '{{ ("&" * 999999)|forceescape|forceescape|forceescape }}',
]

LONG = [
    endless("{{ words|upper|length }}"),
    endless("{{ words|title|length }}{{ words|urlencode|length }}{{ words|wordwrap(2)|length }}"),
    endless("{{ word.upper()|length }}{{ words.split()|length }}"),
    endless("{{ words.rfind('b' * 900) }}{{ words.strip('a' * 9000) }}"),
    endless("{{ word ~ word }}"),
    endless("{% if word == word ~ 'x' %}{% endif %}{% if word ~ 'x' in words %}{% endif %}"),
    endless("{{ word[1:]|length }}"),
    endless("{{ words|list|sort|length }}{{ words|groupby(0)|length }}{{ words|unique|list|length }}"),
    endless("{{ words|map('upper')|list|length }}{{ words|select|list|length }}"),
    endless("{{ words|map(attribute='a.' * 900, default=1)|list|length }}"),
    endless("{% filter upper %}{{ words }}{% endfilter %}"),
    endless("{% set a %}{{ words }}{% endset %}"),
    endless("x" * 3_000),
    endless("{{ name if name else name }}" * 100),
    endless("{% if false %}" + "{{ name }}" * 500 + "{% endif %}"),
    endless(endless("{{ name }}")),
    endless("", "{% for i in range(99999) if i > 99998 %}{% endfor %}"),
    endless("{{ loop.length }}{{ loop.changed(words) }}{{ loop.cycle(words, word)|length }}"),
    endless("{{ '%s'|format(words)|length }}{{ '{}'.format(words)|length }}{{ words|tojson|length }}"),
    endless("{{ ('{}' * 100).format(*range(100)) }}"),
    in_namespace("[s.s, s.s]"),
    in_namespace("(s.s, s.s)"),
    in_namespace("{'a': s.s, 'b': s.s}"),
    in_namespace("[s.s]"),
    in_namespace("s.s ~ s.s"),
    in_namespace("s.s + s.s"),
    in_namespace("s.s|replace('x', 'xx')"),
    in_namespace("s.s|join('xxxx')"),
    in_namespace("s.s|e"),
    in_namespace("'%s%s'|format(s.s, s.s)"),
    in_namespace("'{0}{0}'.format(s.s)"),
    in_namespace("dict(a=s.s, b=s.s)"),
    in_namespace("[s, s]"),
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro m(n) %}{% if n %}{% call m(n - 1) %}{% endcall %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for a in [1] recursive %}{{ loop(range(99)) if loop.depth < 9 }}{% endfor %}",
    "{% set n = namespace(n=60) %}{% block b %}{% if n.n %}{% set n.n = n.n - 1 %}{{ self.b() }}{{ self.b() }}"
    "{% endif %}{% endblock %}" + endless(endless("{{ self.b() }}")),
    "{{ word }}" * 200,
    "{% macro m(" + ",".join(f"a{n}=1" for n in range(1_500)) + ") %}{% endmacro %}" + endless("{% set a = m() %}"),
]

_MODULUS = 2**61 - 1  # of Python's hash of a number: all its multiples share one

LARGE += [
    "{% set m = 2**61 - 1 %}{{ range(0, m * 18000, m)|unique|first }}",
    "{% set m = 2**61 - 1 %}{{ dict(range(0, m * 18000, m)|batch(2))|length }}",
    "{{ ('" + " ".join(str(_MODULUS * n) for n in range(9_000)) + "').split()|map('int')|unique|list|length }}",
    "{{ {" + ",".join(f"{_MODULUS * n}:1" for n in range(2_400)) + "}|length }}",
    "{{ 2 ** 63 * 2 }}{{ 1 + 18446744073709551615 }}",
]

_SETS = "".join(f"{{% set a{n}=1 %}}" for n in range(500))

UNREADABLE = [
    _SETS + "".join(f"{{% block b{n} scoped %}}{{% endblock %}}" for n in range(500)),
    "{{ x }}" * 150_000,
    "{{ x }}" * 100_000,
    "{% if x %}" * 90_000,
    "{% for x in y %}" * 60_000,
    "{{ " + "(" * 900_000,
    "{{ " + "[" * 900_000,
    "{{ 1" + "+1" * 450_000 + " }}",
    "{{ x" + "|upper" * 160_000 + " }}",
    "{{ x" + ".a" * 450_000 + " }}",
    "{{ " + "not " * 240_000 + "x }}",
    "{{ " + "1" * 900_000 + " }}",
    "{{ 0x" + "f" * 900_000 + " }}",
    "{% if x %}{% set a = 1 %}" * 30_000,
    "{{" * 490_000,
    "{" * 990_000,
    "{#" * 490_000,
    "{% raw %}" * 110_000,
    "{{ '" + "a\\" * 450_000,
    "x" * 1_000_001,
]


def render(source: str, html: bool) -> int:
    """Compile and render, as apply, preflight, preview and merge do."""
    try:
        return len(compile_template(source, name="t", html=html).render(dict(FIELDS)))
    except (ConfigError, DataError) as error:
        return -1 if error.where and len(str(error)) < 1_500 else -2


def render_all(sources: list[str], html: bool) -> list[tuple[str, int, float]]:
    """Return of each template its beginning, the length of what it made, and the processor time that it took."""
    costs = []
    for source in sources:
        begun = time.process_time()
        made = render(source, html)
        costs.append((source[:200], made, time.process_time() - begun))
    return costs
