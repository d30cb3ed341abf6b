"""Few renderings find what rendering every recipient would find."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from postroad.campaign.trial import MAX_SHOWN, StepTrial
from postroad.errors import DataError
from postroad.mail.message import CompiledMessage, MessageSource, SenderIdentity, compile_message
from postroad.mail.template import compile_template
from tests.campaign.checking import SIGNER

ADA = SenderIdentity(
    address="ada@example.com",
    display_name="Ada Lovelace",
    reply_to=None,
    postal_address="1 Road\nSpringfield",
    bounce_domain=None,
)


def message(text: str, *, subject: str = "Hi", html: str | None = None) -> CompiledMessage:
    return compile_message(
        MessageSource(subject=subject, text=text, html=html, name="t"),
        sender=ADA,
        signer=SIGNER,
        public_url="https://x.example",
    )


def audience(size: int = 1_500) -> list[tuple[str, dict[str, str]]]:
    rng = random.Random(7)
    names = ["Ada Lovelace", "Grace Hopper", "Cher", "Ζωή Π", 'O\'Neil "Q" <b>', "a  b", "x" * 300, "ß" * 240]
    people = []
    for number in range(size):
        fields = {"name": rng.choice(names[:2])}
        if number % 97 == 0:
            fields["name"] = rng.choice(names)
        for field, values in (
            ("n", ["1", "2", "3", *(["0"] if number % 71 == 0 else [])]),
            ("plan", ["free", "pro", *(["none"] if number % 211 == 0 else [])]),
            ("bio", ["short", "x" * 40, *(["y" * 60_000] if number % 301 == 0 else [])]),
        ):
            if rng.random() > 0.02:
                fields[field] = rng.choice(values)
        local = "first.last" if number % 53 else "single"
        people.append((f"{local}{number}@d{number % 5}.example", fields))
    return people


TEMPLATES = [
    "{{ name }}",
    "{{ name }} {{ n }} {{ plan }}",
    "{{ name|upper }}{{ bio|default('') }}",
    "{{ name.split(' ')[1] }}",
    "{{ name.split(' ')[1]|default('x') }}",
    "{{ (name|default('a b')).split(' ')[1] }}",
    "{{ 100 // (n|int) }}",
    "{{ 100 // (n|default('1')|int) }}",
    "{% if n is defined and plan is defined %}{{ 6 // (n|int) }}{% endif %}",
    "{% if plan == 'pro' %}{{ n }}{% else %}{{ name.split(' ')[1] }}{% endif %}",
    "{{ {'free': 'F', 'pro': 'P'}[plan] }}",
    "{{ {'free': 'F', 'pro': 'P'}[plan|default('pro')] }}",
    "{{ name.index('e') }}",
    "{{ '%d' % name|length }}{{ '%d' % n }}",
    "{{ '{:d}'.format(n) }}",
    "{{ name[name|length - 5] }}{{ name.format(1) }}",
    "{% set x = name %}{{ x.split(' ')[1] }}",
    "{% set x %}{{ name }}{% endset %}{{ x.split(' ')[1] }}",
    "{% macro m() %}{{ name }}{% endmacro %}{{ m().split(' ')[1] }}",
    "{% macro m(x) %}{{ x.split(' ')[1] }}{% endmacro %}{{ m(name) }}",
    "{% block b %}{{ name }}{% endblock %}{{ self.b().split(' ')[1] }}",
    "{% filter wordwrap(1) %}{{ n }}{% endfilter %}{{ 1 // (n|int) }}",
    "{% for w in name.split(' ') %}{{ loop.index }}{{ name.split(' ')[loop.index] if not loop.last }}{% endfor %}",
    "{% for i in range(n|default('1')|int) %}{{ 1 // i }}{% endfor %}",
    "{% with x = name %}{{ x.split(' ')[1] }}{% endwith %}",
    "{{ address.split('.')[2] }}",
    "{{ sender_name.split(' ')[1] }}{{ postal_address.split('\n')[1] }}",
    "{{ (bio|default('')) ~ (bio|default('')) }}" + "{{ bio|default('') }}" * 20,
    "{% for i in range(25) %}{{ bio|default('')|title }}{% endfor %}",
    "{{ bio|default('')|replace('y', name) }}",
    "{{ 'x' if name else 'y' }}{{ n if plan else name.split()[1] }}",
    "{{ name|batch(0)|list }}",
    "{{ none_of_them|default(name) }}",
    "{{ ['a', 'b'][n|default('0')|int] }}",
    "{{ name|attr(plan) }}",
    "{{ (n|float / 0) if plan == 'none' else n }}",
    "{{ 'é' * (name|length) }}{{ 'x' * ((n|default('1')|int) - 1) + 1 if n == '3' else 'y' }}",
    "{{ name|truncate(n|default('5')|int) }}",
    "{{ self }}",
]


def failing(compiled: CompiledMessage, people: list[tuple[str, dict[str, str]]]) -> Mapping[str, int]:
    """Return the faults and their numbers of recipients by rendering for every recipient."""
    found: dict[str, int] = {}
    for address, fields in people:
        try:
            compiled.require_rendering({**fields, **compiled.reserved_fields(0, address)})
        except DataError as error:
            what = f"{error.where}: {error.message}"
            found[what] = found.get(what, 0) + 1
    return found


@pytest.mark.parametrize("place", ["text", "subject", "html"])
@pytest.mark.parametrize("source", TEMPLATES)
def test_a_trial_finds_the_faults_of_a_full_rendering(source: str, place: str) -> None:
    compiled = message(
        source if place == "text" else "x",
        subject=source if place == "subject" else "Hi",
        html=f"<p title='{{{{ name }}}}'>{source}</p>" if place == "html" else None,
    )
    people = audience()
    trial = StepTrial([compiled])
    for address, fields in people:
        trial.try_recipient(address, fields)
    assert {fault.what: fault.recipients for fault in trial.faults} == failing(compiled, people)


@pytest.mark.parametrize("source", ["{{ name }}", "{{ name|upper }}{% if plan %}{{ plan }}{% endif %}{{ bio }}"])
def test_shown_fields_need_one_rendering_for_each_set(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = message(source)
    rendered: list[object] = []
    monkeypatch.setattr(CompiledMessage, "require_rendering", lambda _, fields: rendered.append(fields))
    trial = StepTrial([compiled])
    for number in range(1_000):
        trial.try_recipient(f"r{number}@example.com", {"name": f"N{number}", "plan": f"P{number}", "bio": "x" * 250})
    assert len(rendered) == 1
    trial.try_recipient("long@example.com", {"name": "x" * (MAX_SHOWN + 1), "plan": "p", "bio": "x"})
    assert len(rendered) == 2


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        ("{{ a }}{{ b|upper }}{{ c ~ 'x' }}{{ d|default('x') }}", set()),
        ("{% if a %}{{ b }}{% elif c is defined and not d %}{{ e }}{% endif %}", set()),
        ("{% for x in a %}{{ b }}{{ x }}{% endfor %}", {"a"}),
        ("{{ a[0] }}{{ b.upper() }}{{ c|replace('x', d) }}{{ e|default(f) }}", {"a", "b", "c", "d", "e", "f"}),
        ("{% if a == 'x' %}{{ b }}{% endif %}", {"a"}),
        ("{% set x = a %}{% set y %}{{ b }}{% endset %}", {"a", "b"}),
        ("{{ super }}{{ self }}{% if a %}{% endif %}", {"super", "self"}),
    ],
)
def test_evaluated_fields_are_distinguished_from_shown_ones(source: str, fields: set[str]) -> None:
    assert compile_template(source, name="t").value_fields == fields


def test_failures_of_many_kinds_are_counted_together() -> None:
    trial = StepTrial([message("{{ {'a': 1}[name] }}")])
    for number in range(100):
        trial.try_recipient(f"r{number}@example.com", {"name": f"N{number}"})
    assert len(trial.faults) == 21
    assert sum(fault.recipients for fault in trial.faults) == 100
    assert trial.faults[-1].what == "its templates fail in other ways too"
