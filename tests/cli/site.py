"""A folder with settings, a campaign and an audience, on an embedded queue server and database that tests share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postroad.embedded import stop_redis
from tests.commands import run_command

SETTINGS = """
public_url = "https://mail.example.com"
[senders.ada]
address = "ada@example.com"
postal_address = "1 Post Road, Milestone"
route = "relay"
[senders.ada.warmup]
[routes.relay]
host = "127.0.0.1"
port = 1
tls = "none"
[webhooks_out.shop]
url = "https://127.0.0.1:1/hooks"
allow_networks = ["127.0.0.0/8"]
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
[bounce.sources.box]
kind = "maildir"
path = "box"
"""
CAMPAIGN = """
name: spring
sender: ada
audience: {name: people, file: people.csv}
steps:
  - {email: hello, subject: Hello, text: hello.txt}
"""


class Site:
    """Runs commands in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "POSTROAD_CONFIG": str(folder / "postroad.toml"),
            "PREFECT_API_URL": "http://127.0.0.1:1/api",
        }

    def run(self, *words: str, terminal: bool = False) -> subprocess.CompletedProcess[str]:
        return run_command(self.folder, self.environment, *words, terminal=terminal)


@contextmanager
def a_site(folder: Path) -> Iterator[Site]:
    (folder / "postroad.toml").write_text(SETTINGS)
    (folder / "campaign.yaml").write_text(CAMPAIGN)
    (folder / "hello.txt").write_text("Hello {{ first_name }}\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n")
    (folder / "people.csv").write_text("address,first_name\nbob@example.org,Bob\n")
    for name in ("new", "cur", "tmp"):
        (folder / "box" / name).mkdir(parents=True)
    site = Site(folder)
    try:
        for words in (("campaign", "apply", "campaign.yaml"), ("audience", "import", "people", "people.csv")):
            done = site.run(*words)
            assert done.returncode == 0, done.stderr
        yield site
    finally:
        stop_redis(folder / ".postroad")
