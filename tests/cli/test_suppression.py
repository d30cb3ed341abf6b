"""postroad suppression, as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run

pytestmark = pytest.mark.timeout(240)  # a process for each command


def shown(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("suppression", "list", "--json").stdout)
    return found


def test_a_list_goes_out_comes_in_and_is_lifted_by_hand(run: Run, tmp_path: Path) -> None:
    assert run("suppression", "add", "Ada@example.com", "@example.org", "--json").stdout == (
        '{"suppressed": 2, "known": 0}\n'
    )
    assert run("suppression", "add", "bob@example.com", "--hashed").returncode == 0
    assert "bob" not in run("suppression", "list").stdout
    assert run("suppression", "export", "out.csv").returncode == 0
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "address,audience,reason,source,created_at"
    assert len(lines) == 4
    assert run("suppression", "export").stdout.splitlines() == lines
    assert run("suppression", "import", "out.csv", "--json").stdout == '{"suppressed": 0, "known": 3}\n'

    assert run("suppression", "lift", "bob@example.com").returncode == 2, "without a reason"
    lifted = run("suppression", "lift", "bob@example.com", "--reason", "wrote to us", "--by", "Eve", "--json")
    assert [one["address"][0] for one in json.loads(lifted.stdout)] == ["#"]
    again = run("suppression", "lift", "bob@example.com", "--reason", "wrote to us")
    assert again.returncode == 7
    assert "nothing of this is suppressed" in again.stderr
    assert {one["address"] for one in shown(run)} == {"ada@example.com", "@example.org"}


def test_a_row_that_is_wrong_keeps_nothing_of_its_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("address,reason\na@example.com,manual\nb@example.com,boredom\n")
    result = run("suppression", "import", "list.csv")
    assert result.returncode == 4
    assert "list.csv, line 3" in result.stderr
    assert shown(run) == []


def test_an_audience_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    result = run("suppression", "add", "a@example.com", "--audience", "strangers")
    assert result.returncode == 7
    assert "strangers" in result.stderr
    assert shown(run) == []
    (tmp_path / "people.csv").write_text("address\na@example.com\n")
    assert run("audience", "import", "people", "people.csv").returncode == 0
    assert run("suppression", "add", "a@example.com", "--audience", "people").returncode == 0
    assert [(one["address"], one["audience"]) for one in shown(run)] == [("a@example.com", "people")]
