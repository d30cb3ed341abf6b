"""`postroad demo`, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.test_state_folder import modes

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]  # Two demos, each within its 240 s.


def run_demo(state_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "postroad", "demo", *options],
        env={**os.environ, "POSTROAD_STATE_DIR": str(state_dir)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        umask=0o022,
        check=False,
    )


def account(state_dir: Path) -> dict[str, Any]:
    result = run_demo(state_dir, "--recipients", "2000", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_demo_accounts_for_everybody_and_again_sends_nothing(tmp_path: Path) -> None:
    first = account(tmp_path)
    parts = ("suppressed", "accepted", "deferred", "bounced", "unknown")
    assert first["audience"] == sum(first[part] for part in parts) == 2000
    assert first["rows"] == first["imported"] + first["duplicate_rows"] + first["refused"]
    assert first["captured"] == first["accepted"] == first["new_messages"]
    assert first["duplicates"] == 0
    assert min(first[part] for part in (*parts, "refused", "duplicate_rows")) > 0, "it shows nothing of this"
    mail = list((tmp_path / "sandbox/Maildir/new").iterdir())
    assert len(mail) == first["accepted"]

    assert modes(tmp_path) == {}, "another user of the machine can read this"

    second = account(tmp_path)
    assert second["new_messages"] == 0
    assert second["captured"] == first["captured"]
    assert second["audience"] == first["audience"]
