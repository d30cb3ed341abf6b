"""`benchmarks journeys`: a pass over many enrolments that are due, and one in which none is."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from msgspec import Struct

from benchmarks.databases import POSTGRESQL, SQLITE, running_postgresql
from benchmarks.figures import Figure, Measure, alone
from benchmarks.large_ledger import NOW, large_ledger
from postroad.campaign.apply import apply
from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import advance
from postroad.settings import Settings
from postroad.store.engine import open_engine, sqlite_url, write
from postroad.store.migrate import upgrade

MOVES_BAR, IDLE_BAR_MS = 50_000.0, 200.0
_SETTINGS = """
secret_key = "a key of the benchmark"
[senders.news]
address = "news@sender.example"
postal_address = "1 Post Road, Milestone"
route = "direct"
[routes.direct]
kind = "direct"
"""
_CAMPAIGN = """
name: trial
sender: news
audience: {name: everyone}
steps:
  - {email: one, subject: "One", text: text.txt}
  - {wait: 3d, name: first}
  - if: "number(seats) >= 5"
    then: [{email: two, subject: "Two", text: text.txt}]
  - if: "plan = 'paid'"
    then: [{email: three, subject: "Three", text: text.txt}]
  - if: "accepted('one', within => 1d) and country = 'DE'"
    then: [{email: four, subject: "Four", text: text.txt}]
  - {wait: 7d}
  - {email: five, subject: "Five", text: text.txt}
"""


class Effort(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    enrolments: int = 1_000_000


QUICK = Effort(enrolments=20_000)


def measures(effort: Effort) -> list[Measure]:
    """Return what is measured of each database."""
    size = f"{effort.enrolments:,} enrolments"
    return [
        measure
        for database in (SQLITE, POSTGRESQL)
        for measure in (
            Measure(name=f"enrolments moved in a second past three conditions, of {size}, {database}", bar=MOVES_BAR),
            Measure(name=f"a pass in which none of {size} is due, ms, {database}", bar=IDLE_BAR_MS),
        )
    ]


async def journeys(effort: Effort) -> list[Figure]:
    """Measure both passes on both databases."""
    with TemporaryDirectory(prefix="postroad-bench-") as name:
        found = [*_measure(Path(name), sqlite_url(Path(name)), effort)]
        async with running_postgresql() as url:
            found += _measure(Path(name), url, effort)
    return [alone(measure, value) for measure, value in zip(measures(effort), found, strict=True)]


def _measure(folder: Path, url: str, effort: Effort) -> tuple[float, float]:
    engine = open_engine(url)
    upgrade(engine)
    large_ledger(engine, effort.enrolments)
    (folder / "postroad.toml").write_text(_SETTINGS, "utf-8")
    (folder / "campaign.yaml").write_text(_CAMPAIGN, "utf-8")
    (folder / "text.txt").write_text("Hello.\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n", "utf-8")
    settings = Settings.load(folder / "postroad.toml")
    apply(engine, settings, read_campaign(folder / "campaign.yaml", settings), NOW)
    with write(engine) as connection:
        connection.execute(
            sa.text(
                "UPDATE campaign SET state = 'running', launched_at = created_at, suppressions_seen = 1000000000 "
                "WHERE name = 'trial'"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO enrolment (campaign_id, recipient_id, state, step_id, entered_at, since, due_at) "
                "SELECT step.campaign_id, recipient.id, 'active', step.id, step.at, step.at, step.at FROM recipient "
                "CROSS JOIN (SELECT step.id, step.campaign_id, campaign.created_at AS at FROM step "
                "JOIN campaign ON campaign.id = step.campaign_id WHERE step.name = 'first') AS step"
            )
        )
    try:
        moved = effort.enrolments / _seconds_of(engine, NOW)
        return moved, 1_000 * _seconds_of(engine, NOW)
    finally:
        engine.dispose()


def _seconds_of(engine: sa.Engine, now: datetime) -> float:
    begun = time.perf_counter()
    advance(engine, "trial", now + timedelta(minutes=1))
    return time.perf_counter() - begun
