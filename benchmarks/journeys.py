"""`benchmarks journeys`: a pass over a million enrolments that are due, and one in which none of five million is.

Also what a frequency cap costs an admission, and how large enrolments and touches are.
"""

from __future__ import annotations

import resource
import time
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from msgspec import Struct

from benchmarks.capped_admission import cost_of_caps
from benchmarks.databases import POSTGRESQL, SQLITE, running_postgresql
from benchmarks.figures import Figure, Measure, alone
from benchmarks.large_ledger import NOW, LargeLedger, insert_series
from postroad.campaign.apply import apply
from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import advance
from postroad.settings import Settings
from postroad.store.campaign import steps_of
from postroad.store.engine import open_engine, sqlite_url, write
from postroad.store.migrate import upgrade
from postroad.store.types import sql_time

MOVES_BAR, IDLE_BAR_MS, MEMORY_BAR_MB = 50_000.0, 200.0, 50.0
CAPS_BAR = 1.2
BYTES_BAR = 1_000.0
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
    """How much is measured. ``due``: those of the enrolments whose wait is over. ``admitted``: touches, with caps."""

    enrolments: int = 5_000_000
    due: int = 1_000_000
    admitted: int = 20_000


QUICK = Effort(enrolments=40_000, due=20_000, admitted=2_000)


def measures(effort: Effort) -> list[Measure]:
    """Return what is measured of each database."""
    due, size = f"{effort.due:,} enrolments", f"{effort.enrolments:,} enrolments"
    return [
        measure
        for database in (SQLITE, POSTGRESQL)
        for measure in (
            Measure(
                name=f"enrolments moved in a second past three conditions, of {due}, {database}",
                bar=MOVES_BAR,
                at_least=True,
            ),
            Measure(name=f"growth of memory in this pass, MB, {database}", bar=MEMORY_BAR_MB),
            Measure(name=f"a pass in which none of {size} is due, ms, {database}", bar=IDLE_BAR_MS),
            Measure(name=f"size of an enrolment with its indexes, bytes, {database}", bar=BYTES_BAR),
            Measure(name=f"size of a touch with its indexes, bytes, {database}", bar=BYTES_BAR),
            Measure(name=f"an admission with frequency caps : without, {database}", bar=CAPS_BAR),
        )
    ]


async def journeys(effort: Effort) -> list[Figure]:
    """Measure both databases."""
    with TemporaryDirectory(prefix="postroad-bench-") as name:
        found = [*_measure(Path(name), sqlite_url(Path(name)), effort)]
        async with running_postgresql() as url:
            found += _measure(Path(name), url, effort)
    return [alone(measure, value) for measure, value in zip(measures(effort), found, strict=True)]


def _measure(folder: Path, url: str, effort: Effort) -> list[float]:
    engine = open_engine(url)
    upgrade(engine)
    try:
        ledger, enrolment_bytes = waiting_journey(engine, folder, effort)
        memory_mb = _peak_mb()
        moved = effort.due / _seconds_of(engine, NOW)
        memory_mb = _peak_mb() - memory_mb
        idle_ms = 1_000 * _seconds_of(engine, NOW)
        caps = cost_of_caps(ledger, effort.admitted)
        return [moved, memory_mb, idle_ms, enrolment_bytes, caps.touch_bytes, caps.ratio]
    finally:
        engine.dispose()


def waiting_journey(engine: sa.Engine, folder: Path, effort: Effort) -> tuple[LargeLedger, float]:
    """Add a running journey in which all wait, some until now. Return its ledger and the bytes of an enrolment."""
    (folder / "postroad.toml").write_text(_SETTINGS, "utf-8")
    (folder / "campaign.yaml").write_text(_CAMPAIGN, "utf-8")
    (folder / "text.txt").write_text("Hello.\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n", "utf-8")
    settings = Settings.load(folder / "postroad.toml")
    campaign = apply(engine, settings, read_campaign(folder / "campaign.yaml", settings), NOW)
    assert campaign.id is not None
    with write(engine) as connection:
        [first] = [step.id for step in steps_of(connection, campaign.id) if step.name == "first"]
        started = "UPDATE campaign SET state = 'running', launched_at = created_at, suppressions_seen = 1000000000"
        connection.execute(sa.text(started))
    _add_recipients(engine, effort.enrolments)
    ledger = LargeLedger(engine, effort.enrolments, campaign.audience_id, 0, campaign.sender_id)
    at, later = (sql_time(time, engine.dialect.name) for time in (NOW, NOW + timedelta(days=400)))
    due_at = f"CASE WHEN n <= {effort.due} THEN '{at}' ELSE '{later}' END"
    before = ledger.bytes()
    insert_series(
        engine,
        "enrolment",
        "INSERT INTO enrolment (campaign_id, recipient_id, state, step_id, entered_at, since, due_at) "
        f"SELECT {campaign.id}, n, 'active', {first}, '{at}', '{at}', "
        f"CAST({due_at} AS {'TEXT' if engine.dialect.name == 'sqlite' else 'TIMESTAMPTZ'}) FROM",
        effort.enrolments,
    )
    size = (ledger.bytes() - before) / effort.enrolments
    ledger.analyse()
    return ledger, size


def _add_recipients(engine: sa.Engine, number: int) -> None:
    """Add recipients with merge fields: they match none of the conditions."""
    fields = '{"seats": "2", "plan": "trial", "country": "DE"}'
    insert_series(
        engine,
        "recipient",
        "INSERT INTO recipient (id, address, domain, time_zone, attributes, created_at) SELECT n, "
        "'r' || n || '@d' || (n % 97) || '.example', 'd' || (n % 97) || '.example', 'Europe/Berlin', "
        f"'{fields}', '{sql_time(NOW, engine.dialect.name)}' FROM",
        number,
    )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _seconds_of(engine: sa.Engine, now: datetime) -> float:
    begun = time.perf_counter()
    advance(engine, "trial", now + timedelta(minutes=1))
    return time.perf_counter() - begun
