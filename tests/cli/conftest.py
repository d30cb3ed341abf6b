"""A folder with a postroad.toml, and commands of ours that run in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

SETTINGS = """
public_url = "https://mail.example.com"
[senders.ada]
address = "ada@example.com"
postal_address = "1 Post Road, Milestone"
route = "relay"
[routes.relay]
host = "127.0.0.1"
port = 1
tls = "none"
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "postroad.toml").write_text(SETTINGS)

    def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "postroad", *arguments],
            cwd=tmp_path,
            env={**os.environ, "POSTROAD_CONFIG": str(tmp_path / "postroad.toml"), **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return command
