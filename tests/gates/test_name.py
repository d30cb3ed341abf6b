"""Names of gates are text on the server and in the database: each reads back as what it was written from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.gates.name import QUEUE_GATE, GateKind, GateName, Receiver

words = st.text(st.characters(exclude_characters=":/", exclude_categories=["Cs"]), min_size=1, max_size=20)
receivers = st.builds(Receiver, words, st.none() | words, st.none() | words)
anything = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
names = st.one_of(
    st.just(QUEUE_GATE),
    st.builds(GateName.campaign, anything),
    st.builds(GateName.hold, anything),
    st.builds(GateName.sender, anything),
    st.builds(GateName.route, anything),
    st.builds(GateName.provider, words),
    st.builds(GateName.at_receiver, anything, receivers),
    st.builds(GateName.warmup, words, anything),
)


@given(names)
def test_a_formatted_name_parses_to_itself(name: GateName) -> None:
    assert GateName.parse(str(name)) == name


@given(st.text(max_size=30) | st.builds("{}:{}".format, st.sampled_from(GateKind), st.text(max_size=30)))
def test_any_text_is_a_formatted_name_or_rejected(text: str) -> None:
    name = GateName.parse(text)
    assert name is None or str(name) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("queue", QUEUE_GATE),
        ("campaign:spring: part 2", GateName.campaign("spring: part 2")),
        ("hold:news@example.com", GateName.hold("news@example.com")),
        ("sender:news@example.com", GateName.sender("news@example.com")),
        ("route:relay", GateName.route("relay")),
        ("provider:google", GateName.provider("google")),
        ("provider:google:news@example.com", GateName.at_receiver("news@example.com", Receiver("google"))),
        (
            "provider:other/site.mx.example.net/domain.example.org:news@example.com",
            GateName.at_receiver("news@example.com", Receiver("other", "mx.example.net", "example.org")),
        ),
        ("warmup:google:example.com", GateName.warmup("google", "example.com")),
        ("warmup:other:example.com", GateName.warmup("mx.rare.example", "example.com")),
    ],
)
def test_names_are_those_of_previous_versions(text: str, name: GateName) -> None:
    assert str(name) == text
    assert GateName.parse(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "reports",
        "queue:",
        "queue:x",
        "sender:",
        "sender",
        "provider",
        "provider:",
        "provider::a@example.com",
        "provider:google:",
        "provider:google/zone.example.org:a@example.com",
        "provider:google/domain.a.example/site.b.example:a@example.com",
        "provider:google/domain.:a@example.com",
        "warmup:google",
        "warmup:google:",
    ],
)
def test_other_texts_are_not_gates_of_email(text: str) -> None:
    assert GateName.parse(text) is None
