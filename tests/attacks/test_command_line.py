"""What is written on the command line is bounded, costs little, and ends with a message: each field of each command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from flows.params import Params
from postroad.campaign.steps import NAME_PATTERN
from postroad.cli.app import MAX_WORD_CHARACTERS
from tests.cli.enumerate import commands
from tests.cli.site import Site, a_site

EXIT_CODES = range(8)
WITHIN_S = 20
LONG = MAX_WORD_CHARACTERS - 100
VALUES = {
    str: [
        "9" * LONG + "d",
        "((((a+)+)+[" * (LONG // 11),
        "%_*?'\";--" * (LONG // 9),
        "2027-01-31T09:00Z" + "0" * LONG,
        "99999999999d",
        "@" * LONG,
    ],
    int: ["9" * LONG, "9" * 30, "9" * 18],
    float: ["9" * LONG, "1e308", "nan", "inf"],
}
PLAUSIBLE = {"file": "people.csv", "files": "campaign.yaml", "path": "box", "name": "spring", "campaign": "spring"}
PLAUSIBLE |= {
    "sender": "ada",
    "provider": "google",
    "ids": "72",
    "job": "72",
    "pause": "2",
    "addresses": "a@example.com",
    "address": "a@example.com",
    "subject": "a@example.com",
    "events": "evt_1",
    "since": "1d",
}
PLAUSIBLE |= {"ending": "dead", "as_": "dead", "to": "1h", "reason": "x", "reply": "550 x", "why": "x", "cap": "5"}
PLAUSIBLE |= {"outcome": "dead", "out": "key.pem", "scope": "view", "variant": "plain"}
PLAUSIBLE |= {"target": "backup.tar", "folder": "my-mail"}
PLAUSIBLE |= {"audience": "people", "source": "https://example.org/form"}
PLAUSIBLE |= {"gate": "queue", "id_": "72", "domain": "example.invalid", "selector": "s", "by": "x"}
SERVERS = {"worker", "recorder", "inbound", "web", "sandbox", "bounce watch", "up", "demo", "rehearse"}
MORE = {"dns check": ("--resolver", "127.0.0.1:1", "--no-blocklists"), "campaign cancel": ("--yes",)}
MORE["campaign recall"] = ("--yes",)
MORE["campaign widen"] = ("--yes",)


def fields(command: Any) -> list[Any]:
    """Every argument and option of a command that has a value."""
    return [field for field in command.params if not getattr(field, "is_flag", False) and field.name != "help"]


def kind_of(field: Any) -> type:
    annotation = str(field.type_descriptor.annotation)
    return next((kind for kind in (int, float) if kind.__name__ in annotation), str)


def words_with(name: str, chosen: Any, value: str) -> list[str]:
    """Return a call of a command in which one field has this value, and others what is plausible."""
    words = [*name.split(), *MORE.get(name, ())]
    for field in fields(commands()[name]):
        if field is not chosen and not field.required:
            continue
        given = value if field is chosen else PLAUSIBLE[field.name]
        words += [given] if field.param_type_name == "argument" else [f"{field.opts[-1]}={given}"]
    return words


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.mark.parametrize("name", commands())
def test_a_field_that_is_too_long_or_no_text_is_refused(name: str, site: Site) -> None:
    for field in fields(commands()[name]):
        for value, says in (("x" * (MAX_WORD_CHARACTERS + 1), "is too long"), ("x\udcff", "is not UTF-8 text")):
            done = site.run(*words_with(name, field, value))
            assert done.returncode == 2
            assert says in done.stderr
            assert len(done.stderr) < 500


@pytest.mark.parametrize("name", sorted(commands().keys() - SERVERS))
def test_no_value_of_a_field_is_slow_or_crashes(name: str, site: Site) -> None:
    for field in fields(commands()[name]):
        for value in VALUES[kind_of(field)]:
            begun = time.process_time()
            done = site.run(*words_with(name, field, value))
            spent_s = time.process_time() - begun
            assert done.returncode in EXIT_CODES, (field.name, value[:40])
            assert "Traceback" not in done.stderr, (field.name, value[:40], done.stderr[-300:])
            assert spent_s < WITHIN_S, (field.name, value[:40], spent_s)


@pytest.mark.parametrize("form", Params.__subclasses__(), ids=lambda form: form.__name__)
def test_every_text_of_a_form_is_bounded(form: type[Params]) -> None:
    for name, field in form.model_json_schema()["properties"].items():
        for kind in field.get("anyOf", [field]):
            if kind["type"] == "string":
                assert "maxLength" in field | kind or "enum" in kind or kind["pattern"].startswith(NAME_PATTERN), name
