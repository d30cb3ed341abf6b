"""`postroad permission`: a consent is recorded, and proved with imports and suppressions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ADA = "ada@example.com"
FORM = "https://example.com/newsletter"


@pytest.fixture
def ada(run: Run, tmp_path: Path) -> Run:
    (tmp_path / "people.csv").write_text(f"address\nnonsense\n{ADA}\n")
    assert run("audience", "import", "people", str(tmp_path / "people.csv")).returncode == 0
    return run


def test_a_consent_is_recorded_once_and_proved_with_its_import(ada: Run, tmp_path: Path) -> None:
    words = ("permission", "record", "Ada@Example.com", "people", "--from", FORM, "--at", "2025-05-01T09:30:00+02:00")
    more = ("--ip", "2001:DB8::7", "--wording", "Yes, the newsletter.", "--confirmation", "<1@example.com>")
    assert "is recorded" in ada(*words, *more).stdout
    assert json.loads(ada(*words, *more, "--json").stdout) == {"recorded": 0, "known": 1}
    assert "was recorded before" in ada(*words, *more).stdout
    proof = json.loads(ada("permission", "prove", ADA, "--json").stdout)
    assert (proof["address"], proof["suppressions"]) == (ADA, [])
    recorded, imported = proof["consents"]
    assert recorded["recorded_at"] is not None
    assert {name: recorded[name] for name in ("audience", "given_at", "source", "ip", "wording", "confirmation")} == {
        "audience": "people",
        "given_at": "2025-05-01T07:30:00+00:00",
        "source": FORM,
        "ip": "2001:db8::7",
        "wording": "Yes, the newsletter.",
        "confirmation": "<1@example.com>",
    }
    assert (imported["source"], imported["line"], imported["given_at"]) == (str(tmp_path / "people.csv"), 3, None)
    shown = ada("permission", "prove", ADA).stdout
    assert "2 consents" in shown
    assert FORM in shown


def test_an_unsubscribe_ends_no_consent_and_is_shown(ada: Run) -> None:
    assert ada("suppression", "add", ADA, "--reason", "unsubscribe").returncode == 0
    assert ada("suppression", "add", "@example.com", "--audience", "people", "--hashed").returncode == 0
    done = ada("permission", "prove", ADA)
    assert "1 consent\n" in done.stdout
    assert "No mail is sent: unsubscribe of all mail since" in done.stdout
    [everywhere, domain] = json.loads(ada("permission", "prove", ADA, "--json").stdout)["suppressions"]
    assert (everywhere["reason"], everywhere["audience"]) == ("unsubscribe", None)
    assert (domain["reason"], domain["audience"]) == ("manual", "people")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("nowhere", "people", "--from", FORM), 2, "ADDRESS: it is not a valid address"),
        ((ADA, "people", "--from", " "), 2, "--from: it is empty"),
        ((ADA, "people", "--from", "x" * 201), 2, "more than 200 characters"),
        ((ADA, "people", "--from", FORM, "--at", "yesterday"), 2, "--at: write a date"),
        ((ADA, "people", "--from", FORM, "--at", "2999-01-01"), 2, "--at: it is in the future"),
        ((ADA, "people", "--from", FORM, "--ip", "300.1.1.1"), 2, "--ip: it is not an IPv4"),
        ((ADA, "people", "--from", FORM, "--wording", "x" * 5_001), 2, "more than 5,000"),
        ((ADA, "poeple", "--from", FORM), 7, "people"),
    ],
)
def test_what_cannot_be_recorded_is_refused(ada: Run, words: tuple[str, ...], code: int, message: str) -> None:
    done = ada("permission", "record", *words)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert len(json.loads(ada("permission", "prove", ADA, "--json").stdout)["consents"]) == 1


def test_without_a_consent_there_is_no_proof(ada: Run) -> None:
    unknown = ada("permission", "prove", "eve@example.com")
    assert (unknown.returncode, "no recipient has the address" in unknown.stderr) == (7, True)
    assert ada("permission", "record", "eve@example.com", "people", "--from", FORM).returncode == 0
    assert ada("permission", "prove", "eve@example.com").returncode == 0
    assert ada("permission", "prove", "nonsense").returncode == 2
