from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# The database, queue and relay do not exist: a rehearsal that connected to one of them would fail.
SETTINGS = """
public_url = "https://mail.sender.example"
database_url = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
redis_url = "redis://127.0.0.1:1"
secret_key = "not-for-rehearsals"
[senders.ada]
address = "ada@sender.example"
name = "Ada"
postal_address = "1 Post Road, Milestone"
route = "relay"
rate = "{rate}"
bounce_domain = "bounce.sender.example"
[routes.relay]
host = "127.0.0.1"
port = 1
username = "ada"
password = "secret"
connections = 4
"""

CAMPAIGN = """
name: trial
sender: ada
audience: {name: readers, file: readers.csv}
steps:
  - email: hello
    subject: "Hello {{ first_name }}"
    text: hello.txt
  - wait: 6h
  - email: again
    subject: "Hello again"
    text: hello.txt
"""

TEXT = "Dear {{ first_name }},\n\nas you asked.\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n"


@dataclass
class Scene:
    """A campaign in a folder, and the command that rehearses it."""

    folder: Path

    def write(self, recipients: Sequence[str], *, rate: str = "1000/1s", campaign: str = CAMPAIGN) -> None:
        rows = [f"{address},Reader {number}" for number, address in enumerate(recipients)]
        (self.folder / "readers.csv").write_text("\n".join(["address,first_name", *rows]) + "\n")
        (self.folder / "hello.txt").write_text(TEXT)
        (self.folder / "campaign.yaml").write_text(campaign)
        (self.folder / "postroad.toml").write_text(SETTINGS.format(rate=rate))

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "postroad", "rehearse", "campaign.yaml", *options],
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=220,
            check=False,
        )

    def report(self, *options: str, code: int = 0) -> dict[str, Any]:
        result = self.run(*options, "--json")
        assert result.returncode == code, result.stdout + result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        return found


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    for name in [name for name in os.environ if name.startswith("POSTROAD_")]:
        monkeypatch.delenv(name)
    return Scene(tmp_path)
