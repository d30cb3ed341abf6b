"""`postroad event`: one event, a file of them, and what is known of a recipient."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ADA = "ada@example.com"


@pytest.fixture
def ada(run: Run, tmp_path: Path) -> Run:
    (tmp_path / "people.csv").write_text(f"address\n{ADA}\n")
    assert run("audience", "import", "people", str(tmp_path / "people.csv")).returncode == 0
    return run


def test_an_event_is_recorded_and_listed(ada: Run) -> None:
    words = ("event", "record", ADA, "paid", "--at", "2026-05-01", "--field", "amount=49.90", "--key", "order-1")
    assert ada(*words).stdout == f"event paid of {ADA} is recorded\n"
    assert json.loads(ada(*words, "--json").stdout) == {"recorded": 0, "known": 1}
    assert "was recorded before" in ada(*words).stdout
    [event] = json.loads(ada("event", "list", ADA, "--json").stdout)
    assert event == {
        "name": "paid",
        "at": "2026-05-01T00:00:00+00:00",
        "key": "order-1",
        "fields": {"amount": "49.90"},
    }
    assert "order-1" in ada("event", "list", ADA).stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("nowhere", "paid"), 2, "address"),
        ((ADA, "Paid!"), 2, "a name has at most 64"),
        ((ADA, "paid", "--at", "yesterday"), 2, "--at: write a date"),
        ((ADA, "paid", "--field", "amount"), 2, "has no ="),
        ((ADA, "paid", "--field", "a=1", "--field", "a=2"), 2, "given twice"),
        ((ADA, "paid", "--field", "1=2"), 2, "letter first"),
        ((ADA, "paid", "--key", "k" * 300), 2, "at most 200"),
        (("eve@example.com", "paid"), 7, "no recipient has the address"),
    ],
)
def test_what_cannot_be_recorded_is_refused(ada: Run, words: tuple[str, ...], code: int, message: str) -> None:
    done = ada("event", "record", *words)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr


def test_a_file_is_imported_with_its_refusals(ada: Run, tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text(f"address,event,at\n{ADA},paid,2026-05-01\n{ADA},paid,someday\neve@example.com,paid,\n")
    done = ada("event", "import", str(file))
    assert done.returncode == 0, done.stderr
    assert "3 rows = 1 recorded + 0 known + 2 refused" in done.stdout
    assert "someday" in done.stdout
    again = json.loads(ada("event", "import", str(file), "--json").stdout)
    assert (again["rows"], again["recorded"], again["known"], again["refused"]) == (3, 0, 1, 2)
    assert [(row["line"], row["field"]) for row in again["refusals"]] == [(3, "at"), (4, "address")]
    assert ada("event", "import", str(file), "--event", "Not A Name").returncode == 2
