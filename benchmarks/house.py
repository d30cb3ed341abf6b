"""One Postroad in a folder of its own: settings, a campaign with its templates, recipients in any number.

The message is that of every contestant: text and HTML with six merge fields, from `benchmarks/mail`.
"""

from __future__ import annotations

import csv
from pathlib import Path

from msgspec import Struct

from postroad.settings import SenderSettings

MAIL = Path(__file__).parent / "mail"
CAMPAIGN = "bench"
AUDIENCE = "readers"
SUBJECT = "{{ first_name }}, what is new in {{ product }}"
SENDER = "news@sender.example"
POSTAL_ADDRESS = "Postroad, 1 Old Post Road, 12345 Milestone"
PUBLIC_URL = "https://mail.sender.example"
SELECTOR = "bench"

DOMAINS = ("gmail.com", "outlook.com", "yahoo.com", "icloud.com", "gmx.de", "firm.example")
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "")
FIELDS = ("first_name", "last_name", "company", "city", "plan", "product")

_SETTINGS = """
state_dir = "state"
public_url = "{public_url}"
secret_key = "a secret of the benchmark alone"
[senders.news]
address = "{sender}"
name = "News of Postroad"
postal_address = "{postal_address}"
route = "sink"
bounce_domain = "bounce.sender.example"
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

_SIGNING = """
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
    text: {MAIL}/text.txt
    html: {MAIL}/html.html
"""


class Wish(Struct, frozen=True, kw_only=True):
    """What a house is for. ``port`` is the sink's; ``key_file`` an RSA key in PEM: messages are signed with it."""

    port: int = 25
    connections: int = 20
    concurrency: int = 200
    key_file: Path | None = None


def can_sign() -> bool:
    """Whether this version signs by DKIM."""
    return "dkim" in SenderSettings.model_fields


def build(folder: Path, wish: Wish) -> None:
    """Write the files that an operator would."""
    signing = _SIGNING.format(selector=SELECTOR, key_file=wish.key_file) if wish.key_file else ""
    settings = _SETTINGS.format(
        public_url=PUBLIC_URL,
        sender=SENDER,
        postal_address=POSTAL_ADDRESS,
        signing=signing,
        port=wish.port,
        connections=wish.connections,
        concurrency=wish.concurrency,
    )
    (folder / "postroad.toml").write_text(settings, "utf-8")
    (folder / "campaign.yaml").write_text(_CAMPAIGN, "utf-8")


def write_recipients(path: Path, count: int, *, first: int = 0) -> None:
    """Write a CSV of so many recipients, numbered from the first."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("email", "tz", *FIELDS))
        for n in range(first, first + count):
            zone = ZONES[n % len(ZONES)]
            rows.writerow((f"reader.{n}@{DOMAINS[n % len(DOMAINS)]}", zone, *fields_of(n).values()))


def fields_of(n: int) -> dict[str, str]:
    """Merge fields of the n-th recipient."""
    return {
        "first_name": f"Ada{n % 1000}",
        "last_name": f"Müller-{n % 7919}",
        "company": f"Example & Sons {n % 311}",
        "city": f"Springfield {n % 97}",
        "plan": ("free", "team", "business")[n % 3],
        "product": "Planner",
    }
