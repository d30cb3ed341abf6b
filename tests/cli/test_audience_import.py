"""`postroad audience import`: what a file does that was imported before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_a_file_is_imported_again_after_another_and_else_says_that_nothing_is_to_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for day, city in (("day1", "Bern"), ("day2", "Basel")):
        (tmp_path / f"{day}.csv").write_text(f"email,city\nsync@example.com,{city}\n")
    done = "audience people: 1 row = 1 imported + 0 duplicates + 0 refused"
    for day in ("day1", "day2", "day1"):
        assert run("audience", "import", "people", f"{day}.csv").stdout.splitlines()[-1] == done
    again = run("audience", "import", "people", "day1.csv").stdout.splitlines()
    assert again[-2] == "audience people: nothing to do, this file was imported and no other import came after it"
    assert json.loads(run("audience", "import", "people", "day1.csv", "--json").stdout)["already"] is True
