"""A folder with settings, and `postroad doctor` as a process of its own in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from postroad.embedded import stop_redis
from tests.cli.conftest import SETTINGS

Checks = dict[str, dict[str, Any]]
Doctor = Callable[..., Checks]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder whose embedded queue server ends with the test."""
    (tmp_path / "postroad.toml").write_text(SETTINGS)
    yield tmp_path
    stop_redis(tmp_path / ".postroad")


@pytest.fixture
def doctor(site: Path) -> Doctor:
    """Run `postroad doctor --json` as a process, which must end by itself. Returns its checks by part."""

    def run(**variables: str) -> Checks:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("POSTROAD_")},
            "POSTROAD_CONFIG": str(site / "postroad.toml"),
            "PREFECT_API_URL": "http://127.0.0.1:1/api",
            **variables,
        }
        command = [sys.executable, "-m", "postroad", "doctor", "--json"]
        done = subprocess.run(
            command, cwd=site, env=environment, capture_output=True, text=True, timeout=55, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        checks = json.loads(done.stdout)
        assert done.returncode == any(check["health"] == "fail" for check in checks)
        return {check["part"]: check for check in checks}

    return run
