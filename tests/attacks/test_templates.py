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
from tests.attacks.templates import CPU_S, FOOT, LARGE, LONG, MEMORY_MIB, UNREADABLE, endless, render
from tests.campaign.checking import SIGNER
from tests.campaign.project import NOW, CampaignProject


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("sources", [LARGE, LONG, UNREADABLE], ids=["large", "long", "unreadable"])
def test_templates_without_end_are_bounded(sources: list[str], html: bool) -> None:
    outcome = run_limited(
        "tests.attacks.templates:render_all", sources, html, cpu_s=0.5 * len(sources), memory_mib=MEMORY_MIB
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
