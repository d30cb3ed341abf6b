"""No template takes more processor time or memory than its budget: at apply, preflight, preview and merge."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.campaign.preflight import Level, check
from postroad.campaign.preview import PreviewRequest, preview
from postroad.errors import ConfigError, DataError
from postroad.mail.budget import MAX_LENGTH
from postroad.mail.message import MessageSource, SenderIdentity, compile_message
from postroad.mail.template import compile_template
from postroad.mail.vocabulary import ALLOWED_FILTERS, ALLOWED_TESTS, TEXT_METHODS
from tests.attacks.limits import run_limited
from tests.campaign.project import NOW, CampaignProject
from tests.campaign.test_preflight import SIGNER

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


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("sources", [LARGE, LONG, UNREADABLE], ids=["large", "long", "unreadable"])
def test_templates_without_end_are_bounded(sources: list[str], html: bool) -> None:
    outcome = run_limited(
        "tests.attacks.test_templates:render_all", sources, html, cpu_s=0.5 * len(sources), memory_mib=MEMORY_MIB
    )
    assert outcome.error is None, outcome.message
    for source, made, cpu_s in outcome.value:
        assert cpu_s < CPU_S, source
        assert made <= MAX_LENGTH, source
    assert all(made == -1 for source, made, _ in outcome.value if "autoescape" not in source), outcome.value


LITERALS = st.sampled_from(
    ["name", "word", "words", "tags", "i", "s.s", "loop", "'x'", "''", "'a b' * 9999", "3000000000", "-1", "0", "7"]  # noqa: RUF005
    + ["range(9999)", "[word, words]", "{'a': word}", "('%9999s' * 9)", "('{:>9999}' * 9)", "none", "1.5", "missing"]
)


def _expressions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    args = st.lists(inner, max_size=3).map(", ".join)
    filters, tests = sorted(ALLOWED_FILTERS), sorted(test for test in ALLOWED_TESTS if test.isidentifier())
    return st.one_of(
        st.builds("({})|{}({})".format, inner, st.sampled_from(filters), args),
        st.builds("({})|map('{}', {})|list".format, inner, st.sampled_from(filters), inner),
        st.builds("({}).{}({})".format, inner, st.sampled_from(sorted(TEXT_METHODS)), args),
        st.builds("(({}) is {}({}))".format, inner, st.sampled_from(tests), inner),
        st.builds(
            "(({}) {} ({}))".format,
            inner,
            st.sampled_from(["+", "-", "*", "/", "//", "**", "%", "~", "==", "<", "in", "and", "or"]),
            inner,
        ),
        st.builds("({})[{}]".format, inner, inner),
        st.builds("({})[{}:{}]".format, inner, inner, inner),
        st.builds("[{0}, {0}, {1}]".format, inner, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
    )


EXPRESSIONS = st.recursive(LITERALS, _expressions, max_leaves=8)


def _statements(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{{% for i in {} %}}{}{{% endfor %}}".format, EXPRESSIONS, inner),
        st.builds("{{% for i in range(99999) %}}{}{{% endfor %}}".format, inner),
        st.builds("{{% set s.s = {} %}}{}".format, EXPRESSIONS, inner),
        st.builds("{{% if {} %}}{}{{% endif %}}".format, EXPRESSIONS, inner),
        st.builds("{{% macro m(i) %}}{}{{% endmacro %}}{{{{ m({}) }}}}".format, inner, EXPRESSIONS),
        st.builds("{{% filter {} %}}{}{{% endfilter %}}".format, st.sampled_from(sorted(ALLOWED_FILTERS)), inner),
        st.builds("{}{}".format, inner, inner),
    )


TEMPLATES = st.recursive(EXPRESSIONS.map("{{{{ {} }}}}".format), _statements, max_leaves=5)


@given(TEMPLATES, st.booleans())
@settings(deadline=None, max_examples=60)
def test_whatever_the_words_of_templates_can_say_is_bounded(body: str, html: bool) -> None:
    source = "{% set s = namespace(s=words) %}{% macro m(i) %}{% endmacro %}" + body
    begun = time.process_time()
    made = render(source, html)
    assert time.process_time() - begun < CPU_S
    assert -1 <= made <= MAX_LENGTH


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


def test_fields_of_one_recipient_do_not_make_a_message_without_end() -> None:
    identity = SenderIdentity(
        address="ada@example.com", display_name="", reply_to=None, postal_address="1 Road", bounce_domain=None
    )
    lines = "{{ word }} and {{ word }}\n\n" * 700
    message = compile_message(
        MessageSource(subject="Hi", text=lines, html=f"<p>{lines}</p>"),
        sender=identity,
        signer=SIGNER,
        public_url="https://x.example",
    )
    with pytest.raises(DataError, match="makes more than") as caught:
        message.merge(1, "b@example.com", {"word": "é" * 50_000}, NOW)
    assert caught.value.where == "text"
    subject = compile_message(
        MessageSource(subject="{{ word }}", text="x"), sender=identity, signer=SIGNER, public_url="https://x.example"
    )
    with pytest.raises(DataError, match="the subject has more than") as caught:
        subject.merge(1, "b@example.com", {"word": "é" * 50_000}, NOW)


def test_a_template_without_end_is_found_by_preflight_and_preview(project: CampaignProject) -> None:
    project.fill(["a@example.com,,Ada"])
    project.template("hello.txt", FOOT + endless("{{ postal_address|upper|length }}"))
    project.apply()
    found = check(project.engine, project.settings, SIGNER, "spring").findings
    assert [finding.what for finding in found if finding.level is Level.FAIL] == [
        "campaign spring, step hello, text, line 1: the template takes more than 200,000 steps (for a@example.com)"
    ]
    with pytest.raises(DataError, match="more than 200,000 steps"):
        preview(project.engine, project.settings, SIGNER, {}, PreviewRequest(campaign="spring"), now=NOW)


def test_apply_refuses_a_word_that_is_not_allowed(project: CampaignProject) -> None:
    project.template("hello.txt", FOOT + "\n{{ name|pprint }}")
    with pytest.raises(ConfigError) as caught:
        project.apply()
    assert "hello.txt, line 2" in (caught.value.where or "")
    with project.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM campaign")).scalar_one() == 0


def colliding_pairs(count: int) -> list[tuple[int, int]]:
    """Return tuples of one hash: Python's hash of a tuple has no key (Objects/tupleobject.c), so it can be solved."""
    first, second, start, bits = 11400714785074694791, 14029467366897019727, 2870177450012600261, 1 << 64
    pairs: list[tuple[int, int]] = []
    number = 0
    while len(pairs) < count:
        number += 1
        mixed = (start + number * second) % bits
        mixed = ((mixed << 31) | (mixed >> 33)) * first % bits
        solved = (12345 - mixed) * pow(second, -1, bits) % bits
        solved -= bits if solved >> 63 else 0
        if abs(solved) < (1 << 61) - 1:  # Larger numbers have another hash than themselves.
            pairs.append((number, solved))
    assert len({hash(pair) for pair in pairs}) == 1
    return pairs


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{% for x in dict(l|batch(2)).items()|unique %}{% endfor %}", "takes more than"),
        ("{% for x in [dict(l|batch(2)).items()|list]|map('unique')|first %}{% endfor %}", "takes more than"),
        (
            "{% for i in range(99) %}{% set x = (dict(l[:600]|batch(2)).items()|unique)|list %}{% endfor %}",
            "takes more",
        ),
        ("{% set d = dict(dict(l[:600]|batch(2)).items()|batch(2)) %}", "a key of a mapping is a list"),
        ("{% set d = dict(dict(l[:600]|batch(2)).items()|batch(2)|list) %}", "a key of a mapping is a list"),
        ("{% set k = (1, 2) %}{% set d = {k: 3} %}", "a key of a mapping is a list"),
        ("{% set d = dict([(range(3), 3)]) %}", "a key of a mapping is a list"),
        ("{% set d = dict([{'a': (1, 2), 'b': 3}.values()]) %}", "a key of a mapping is a list"),
    ],
)
def test_tuples_of_one_hash_take_no_time_beyond_the_budget(body: str, says: str) -> None:
    numbers = ",".join(f"{first},{second}" for first, second in colliding_pairs(2_200))
    template = compile_template("{% set l = numbers.split(',')|map('int')|list %}" + body, name="t")
    begun = time.process_time()
    with pytest.raises(DataError, match=says):
        template.render({"numbers": numbers})
    assert time.process_time() - begun < CPU_S / 4


def test_lists_that_are_alike_are_shown_once_and_are_no_keys() -> None:
    source = "{% for k, v in [('a', 1), ('b', 2), ('a', 1)]|unique %}{{ k }}{{ v }}{% endfor %}"
    assert compile_template(source, name="t").render({}) == "a1b2"
    with pytest.raises(ConfigError, match="a key of a mapping is a list"):
        compile_template("{% set d = {(1, 2): 3} %}", name="t")
