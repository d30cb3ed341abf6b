"""A folder with a postroad.toml, and commands of ours that run in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import run_command

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
        config = {"POSTROAD_CONFIG": str(tmp_path / "postroad.toml")}
        return run_command(tmp_path, {**os.environ, **config, **variables}, *arguments)

    return command
