"""`postroad segment`: how many, who, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import SETTINGS, Run

WHERE = "plan = 'trial' and (seats >= 5 or not mailed(7d))"
CAMPAIGN = """
name: trial
sender: ada
audience: {name: people, where: "plan = 'trial'"}
steps:
  - {email: hello, subject: Hello, text: hello.txt}
"""


@pytest.fixture
def people(run: Run, tmp_path: Path) -> Run:
    (tmp_path / "postroad.toml").write_text(SETTINGS + '[audiences.people.fields]\nseats = "number"\n')
    (tmp_path / "people.csv").write_text(
        "address,plan,seats\nada@example.com,trial,5\nbob@example.com,free,7\neve@example.com,trial,\n"
    )
    (tmp_path / "hello.txt").write_text("Hello {{ unsubscribe_url }} {{ postal_address }}")
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN)
    for words in (("audience", "import", "people", "people.csv"), ("campaign", "apply", "campaign.yaml")):
        done = run(*words[:-1], str(tmp_path / words[-1]))
        assert done.returncode == 0, done.stderr
    return run


def test_members_are_counted_with_those_who_lack_a_field(people: Run) -> None:
    words = ("segment", "count", "--audience", "people", "--where", WHERE)
    assert people(*words).stdout.splitlines() == [
        "2 of 3 members of people match",
        "1 of 3 members have no value in seats",
    ]
    assert json.loads(people(*words, "--json").stdout) == {
        "audience": "people",
        "where": WHERE,
        "members": 3,
        "matching": 2,
        "suppressed": 0,
        "missing": {"plan": 0, "seats": 1},
    }
    assert "2 of 3 members" in people("segment", "count", "--campaign", "trial").stdout
    assert "3 of 3 members" in people("segment", "count", "--audience", "people").stdout


def test_members_are_listed_page_by_page(people: Run) -> None:
    words = ("segment", "show", "--campaign", "trial", "--limit", "1")
    [ada] = json.loads(people(*words, "--json").stdout)
    assert ada["address"] == "ada@example.com"
    assert f"--after {ada['id']}" in people(*words).stdout
    [eve] = json.loads(people(*words, "--after", str(ada["id"]), "--json").stdout)
    assert eve["address"] == "eve@example.com"
    assert json.loads(people(*words, "--after", str(eve["id"]), "--json").stdout) == []


def test_a_recipient_is_explained_clause_by_clause(people: Run) -> None:
    words = ("segment", "explain", "eve@example.com", "--audience", "people", "--where", WHERE)
    assert people(*words).stdout.splitlines() == [
        "in eve@example.com, a member of people",
        "  yes plan = 'trial'   (plan is 'trial')",
        "  yes any of",
        "    no  seats >= 5   (seats is missing)",
        "    yes not",
        "      no  mailed(7d)   (not mailed)",
    ]
    found = json.loads(people(*words, "--json").stdout)
    assert (found["in"], found["member"], len(found["clauses"])) == (True, True, 5)
    out = people("segment", "explain", "bob@example.com", "--campaign", "trial")
    assert out.stdout.splitlines()[0] == "out bob@example.com, a member of people"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("count",), 2, "no audience is named"),
        (
            ("count", "--audience", "people", "--where", "plan = trial"),
            2,
            "--where, column 8: there is no field 'trial'",
        ),
        (("count", "--audience", "people", "--where", "seats = 'x'"), 2, "column 9: a number is expected"),
        (("count", "--audience", "people", "--where", "accepted('hello')"), 2, "names a step"),
        (("count", "--audience", "others", "--campaign", "trial"), 2, "has the audience people"),
        (("explain", "nowhere", "--campaign", "trial"), 2, "is not an address"),
        (("explain", "zoe@example.com", "--campaign", "trial"), 7, "no recipient has the address"),
    ],
)
def test_what_cannot_be_asked_is_refused(people: Run, words: tuple[str, ...], code: int, message: str) -> None:
    done = people("segment", *words)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
