"""One Postroad in a folder of its own: settings, a campaign with its templates, recipients in any number.

The message is that of every contestant (`benchmarks.same_message`).
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from msgspec import Struct

from benchmarks.same_message import (
    BOUNCE_DOMAIN,
    FIELDS,
    MAIL,
    POSTAL_ADDRESS,
    PUBLIC_URL,
    SELECTOR,
    SENDER,
    SENDER_NAME,
    SUBJECT,
    address_of,
    fields_of,
)

CAMPAIGN = "bench"
AUDIENCE = "readers"
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "")

_SETTINGS = """
state_dir = "state"
public_url = "{public_url}"
secret_key = "a secret of the benchmark alone"
[senders.news]
address = "{sender}"
name = "{sender_name}"
postal_address = "{postal_address}"
route = "sink"
bounce_domain = "{bounce_domain}"
{signing}
[routes.sink]
host = "127.0.0.1"
port = {port}
tls = "none"
connections = {connections}
messages_per_connection = 100000
[queues."email:send"]
concurrency = {concurrency}
rate = "1000000/1s"
burst = 1000000
"""

_KEY = """
[[senders.news.dkim]]
selector = "{selector}"
key_file = "{key_file}"
"""

_CAMPAIGN = f"""
name: {CAMPAIGN}
sender: news
class: bulk
audience: {{name: {AUDIENCE}}}
steps:
  - email: news
    subject: "{SUBJECT}"
    text: text.txt
    html: html.html
"""


class FolderOptions(Struct, frozen=True, kw_only=True):
    """Options of the folder. ``port``: that of the sink. ``keys``: PEM files, each of which signs every message."""

    port: int = 25
    connections: int = 50
    concurrency: int = 600
    keys: tuple[Path, ...] = ()


def build(folder: Path, options: FolderOptions) -> None:
    """Write the settings and the campaign of an operator."""
    signing = "".join(_KEY.format(selector=f"{SELECTOR}{n}", key_file=key) for n, key in enumerate(options.keys))
    settings = _SETTINGS.format(
        public_url=PUBLIC_URL,
        sender=SENDER,
        sender_name=SENDER_NAME,
        bounce_domain=BOUNCE_DOMAIN,
        postal_address=POSTAL_ADDRESS,
        signing=signing,
        port=options.port,
        connections=options.connections,
        concurrency=options.concurrency,
    )
    (folder / "postroad.toml").write_text(settings, "utf-8")
    (folder / "campaign.yaml").write_text(_CAMPAIGN, "utf-8")
    for part in ("text.txt", "html.html"):
        shutil.copy(MAIL / part, folder)  # A campaign reads files of its own folder alone.


def write_recipients(path: Path, count: int, *, first: int = 0) -> None:
    """Write a CSV of so many recipients, numbered from the first."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("email", "tz", *FIELDS))
        for n in range(first, first + count):
            zone = ZONES[n % len(ZONES)]
            rows.writerow((address_of(n), zone, *fields_of(n).values()))
