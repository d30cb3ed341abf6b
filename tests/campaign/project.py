"""An operator's folder for tests: a postroad.toml, a campaign and its templates."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import sqlalchemy as sa

from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.mail.dkim import Algorithm, generate_key
from postroad.settings import Settings
from postroad.store.campaign import Campaign
from postroad.store.engine import read

NOW = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)

CONFIG = """
public_url = "https://post.example.com"

[routes.relay]
host = "smtp.example.com"

[senders.news]
address = "news@example.com"
name = "News"
postal_address = "1 High Street, Springfield"
route = "relay"

[[senders.news.dkim]]
selector = "2026a"
key_file = "dkim.pem"
"""

CAMPAIGN = """
name: spring
sender: news
audience:
  name: people
steps:
  - email: hello
    subject: Hello {{ name|default('you') }}
    text: hello.txt
"""

TEXT = "Hello {{ name|default('you') }}.\n\n{{ postal_address }}\n{{ unsubscribe_url }}\n"


class CampaignProject:
    """A folder with postroad.toml, a campaign and its templates, and the settings that were read from it."""

    def __init__(self, folder: Path, engine: sa.Engine) -> None:
        self.folder = folder
        self.engine = engine
        (folder / "postroad.toml").write_text(CONFIG, encoding="utf-8")
        (folder / "dkim.pem").write_bytes(generate_key(Algorithm.ED25519))
        self.template("hello.txt", TEXT)
        self.settings = Settings.load(folder / "postroad.toml")

    def configure(self, config: str) -> None:
        (self.folder / "postroad.toml").write_text(config, encoding="utf-8")
        self.settings = Settings.load(self.folder / "postroad.toml")

    def template(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def campaign_file(self, text: str = CAMPAIGN) -> Path:
        path = self.folder / "campaign.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return path

    def apply(self, text: str = CAMPAIGN, *, now: datetime = NOW) -> Campaign:
        return apply(self.engine, self.settings, read_campaign(self.campaign_file(text)), now)

    def fill(self, rows: Iterable[str], *, header: str = "email,tz,name", audience: str = "people") -> None:
        lines = list(rows)
        path = self.folder / f"people-{abs(hash((header, *lines)))}.csv"
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        import_file(self.engine, audience, path, NOW)

    def touches(self, campaign: str = "spring") -> list[tuple[str, str, str, datetime]]:
        """Step, address, state and due time of every touch, in order of steps and addresses."""
        from postroad.store.types import UtcDateTime

        statement = sa.text(
            "SELECT step.name, recipient.address, touch.state, touch.due_at FROM touch "
            "JOIN step ON step.id = touch.step_id JOIN recipient ON recipient.id = touch.recipient_id "
            "JOIN campaign ON campaign.id = touch.campaign_id WHERE campaign.name = :name "
            "ORDER BY step.position, recipient.address"
        ).columns(
            sa.column("name", sa.Text()),
            sa.column("address", sa.Text()),
            sa.column("state", sa.Text()),
            sa.column("due_at", UtcDateTime()),
        )
        with read(self.engine) as connection:
            return [tuple(row) for row in connection.execute(statement, {"name": campaign})]
