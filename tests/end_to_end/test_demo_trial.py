"""`postroad demo trial`: a journey of 18 days, in less than a minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(420)


def run_trial(state_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "postroad", "demo", "trial", *options],
        env={**os.environ, "POSTROAD_STATE_DIR": str(state_dir), "COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
    )


def test_everyone_is_where_the_journey_leads_and_the_sums_are_exact(tmp_path: Path) -> None:
    result = run_trial(tmp_path, "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    people = {one["person"].partition("@")[0]: one for one in found["people"]}
    assert {name: (one["state"], one["step"], one["emails"]) for name, one in people.items()} == {
        "grace": ("completed", "last-days", ["hello", "deeper", "last-days"]),
        "alan": ("completed", "last-days", ["hello", "deeper", "last-days"]),
        "edsger": ("completed", "has-an-end", ["hello", "first-steps"]),
        "katherine": ("exited", "wait-2", ["hello"]),
        "radia+bounce": ("exited", "hello", []),
        "donald": ("completed", "last-days", ["hello", "first-steps", "last-days"]),
        "mary": ("exited", people["mary"]["step"], ["hello", "deeper"]),
        "annie": ("active", people["annie"]["step"], people["annie"]["emails"]),
    }
    assert people["katherine"]["goal"]
    assert people["mary"]["goal"]
    assert "event('paid')" in people["katherine"]["why"]
    assert people["radia+bounce"]["why"] == "bounced"
    assert "waits until" in people["annie"]["why"]
    assert found["enrolled"] == 8
    assert found["enrolled"] == found["active"] + found["completed"] + sum(found["exited"].values())
    assert found["accepted"] == found["captured"]
    assert list(tmp_path.iterdir()) == [], "it uses a folder of its own"


def test_it_has_no_recipients_of_other_numbers(tmp_path: Path) -> None:
    result = run_trial(tmp_path, "--recipients", "20")
    assert result.returncode == 2
    assert "--recipients is for the example welcome" in result.stderr
