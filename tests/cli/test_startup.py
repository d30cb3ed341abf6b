"""A command imports what it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LARGE = (
    *("sqlalchemy", "pydantic", "redis", "dns", "prefect", "alembic", "jinja2", "aiosmtplib", "sqlglot"),
    *("sqlalchemy.dialects.postgresql", "rich.console", "rich.progress"),
)
SHOWN = f"""
import sys
from postroad.cli.app import main
try:
    main()
finally:
    print(*sorted(set({LARGE!r}) & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "imported"),
    [(["--help"], {"rich.console"}), (["--version"], set()), (["campaign", "status"], {"sqlalchemy", "pydantic"})],
    ids=["help", "version", "campaign status"],
)
def test_a_command_imports_what_it_runs(
    words: list[str], imported: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROAD_STATE_DIR", str(tmp_path / "state"))
    run = [sys.executable, "-c", SHOWN, *words]
    subprocess.run(run, cwd=tmp_path, check=True, capture_output=True)  # The first one makes the database.
    done = subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert set(done.stderr.split()) == imported


def test_the_help_lists_commands_with_their_summaries(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "postroad", "--help"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert "Import recipients from CSV" in shown
    assert "Resolve messages of which it is unknown" in shown
