"""A folder with settings, and `postroad doctor` in it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from postroad.app.context import AppContext, open_context
from postroad.embedded import stop_redis
from postroad.settings import Settings
from tests.cli.conftest import SETTINGS
from tests.commands import run_command

Checks = dict[str, dict[str, Any]]
Doctor = Callable[..., Checks]
Change = Callable[[Callable[[AppContext], Awaitable[None]]], None]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder whose embedded queue server ends with the test."""
    (tmp_path / "postroad.toml").write_text(SETTINGS)
    yield tmp_path
    stop_redis(tmp_path / ".postroad")


@pytest.fixture
def environment(site: Path) -> dict[str, str]:
    """Return the environment of commands in that folder."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("POSTROAD_")},
        "POSTROAD_CONFIG": str(site / "postroad.toml"),
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
    }


@pytest.fixture
def doctor(site: Path, environment: dict[str, str]) -> Doctor:
    """Run `postroad doctor --json`. Returns its checks by part."""

    def run(**variables: str) -> Checks:
        return checks_of(run_command(site, {**environment, **variables}, "doctor", "--json"))

    return run


def checks_of(done: subprocess.CompletedProcess[str]) -> Checks:
    """Parse the output of `postroad doctor --json`, and compare its exit code."""
    assert "Traceback" not in done.stderr, done.stderr
    checks = json.loads(done.stdout)
    assert done.returncode == any(check["health"] == "fail" for check in checks)
    return {check["part"]: check for check in checks}


@pytest.fixture
def change(site: Path, monkeypatch: pytest.MonkeyPatch) -> Change:
    """Change something of the installation, as its processes would."""
    monkeypatch.setenv("POSTROAD_CONFIG", str(site / "postroad.toml"))
    monkeypatch.chdir(site)

    def changed(work: Callable[[AppContext], Awaitable[None]]) -> None:
        async def main() -> None:
            async with open_context(Settings.load(site / "postroad.toml")) as context:
                await work(context)

        asyncio.run(main())

    return changed
