"""`benchmarks forecast`: time and memory of the whole command, for a campaign to a million recipients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from msgspec import Struct

from benchmarks.databases import POSTGRESQL, SQLITE, running_postgresql
from benchmarks.figures import Figure, Measure, alone
from postroad.campaign.apply import apply
from postroad.campaign.definition import read_campaign
from postroad.settings import Settings
from postroad.store.engine import open_engine, sqlite_url, write
from postroad.store.migrate import upgrade

SECONDS_BAR, MEGABYTES_BAR = 10.0, 300.0
_SETTINGS = """
redis_url = "redis://127.0.0.1:1"
secret_key = "a key of the benchmark"
[senders.news]
address = "news@sender.example"
postal_address = "1 Post Road, Milestone"
route = "direct"
rate = "40/1s"
[routes.direct]
kind = "direct"
"""
_CAMPAIGN = """
name: news
sender: news
audience: {name: readers}
window: {from: "08:00", to: "20:00", days: [mon, tue, wed, thu, fri]}
steps:
  - {email: one, subject: "One", text: text.txt}
  - {wait: 3d}
  - {email: two, subject: "Two", text: text.txt, at: "09:30"}
"""
_ZONES = ("Europe/Berlin", "Europe/London", "America/New_York", "America/Los_Angeles", "Asia/Tokyo", "Australia/Sydney")
_DOMAINS = ("gmail.com", "outlook.com", "yahoo.com", "gmx.de", "web.de", "icloud.com", "comcast.net")


class Effort(Struct, frozen=True, kw_only=True):
    """How much is measured. Half of the recipients are at well-known providers, the others at 5,000 domains."""

    recipients: int = 1_000_000


QUICK = Effort(recipients=10_000)


def measures(effort: Effort) -> list[Measure]:
    """Return what is measured of each database."""
    return [
        Measure(name=f"{what} of a forecast for {effort.recipients:,} recipients on {database}, {unit}", bar=bar)
        for database in (SQLITE, POSTGRESQL)
        for what, unit, bar in (("time", "s", SECONDS_BAR), ("memory", "MB", MEGABYTES_BAR))
    ]


async def forecast(effort: Effort) -> list[Figure]:
    """Measure the command on both databases, from start to exit."""
    with TemporaryDirectory(prefix="postroad-bench-") as name:
        folder = Path(name)
        found = [*_measure(folder, sqlite_url(folder), effort)]
        async with running_postgresql() as url:
            found += _measure(folder, url, effort)
    return [alone(measure, value) for measure, value in zip(measures(effort), found, strict=True)]


def _measure(folder: Path, url: str, effort: Effort) -> tuple[float, float]:
    _make(folder, url, effort.recipients)
    return _run(folder, url)


def _make(folder: Path, url: str, recipients: int) -> None:
    """Make a draft with this many recipients, by the database itself."""
    (folder / "postroad.toml").write_text(_SETTINGS, "utf-8")
    (folder / "campaign.yaml").write_text(_CAMPAIGN, "utf-8")
    (folder / "text.txt").write_text("Hello.\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n", "utf-8")
    engine = open_engine(url)
    upgrade(engine)
    settings = Settings.load(folder / "postroad.toml")
    campaign = apply(engine, settings, read_campaign(folder / "campaign.yaml", settings), datetime.now(UTC))
    with write(engine) as connection:
        series = (
            f"generate_series(1, {recipients}) AS s(n)"
            if connection.dialect.name == "postgresql"
            else f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {recipients}) "
            "SELECT n FROM s) AS s"
        )
        tail = "'tail' || (n % 10000) || '.example'"
        domain = f"CASE WHEN n % 2 = 0 THEN {_choice(f'n % {len(_DOMAINS)}', _DOMAINS)} ELSE {tail} END"
        connection.execute(
            sa.text(
                "INSERT INTO recipient (id, address, domain, time_zone, attributes, created_at) "
                f"SELECT n, 'reader' || n || '@' || ({domain}), ({domain}), {_choice(f'n % {len(_ZONES)}', _ZONES)}, "
                f"'{{}}', '2026-01-01 00:00:00.000000' FROM {series}"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO audience_import (id, audience_id, path, sha256, current_key, rows_total, cursor, line, "
                "rows_done, imported, duplicates, refused, started_at) "
                "VALUES (1, :id, 'x.csv', '', '#1', 0, 0, 1, 0, 0, 0, 0, '2026-01-01 00:00:00.000000')"
            ),
            {"id": campaign.audience_id},
        )
        connection.execute(
            sa.text(
                "INSERT INTO audience_member (audience_id, recipient_id, import_id) "
                f"SELECT {campaign.audience_id}, id, 1 FROM recipient"
            )
        )
    engine.dispose()


def _choice(index: str, values: Sequence[str]) -> str:
    cases = " ".join(f"WHEN {place} THEN '{value}'" for place, value in enumerate(values))
    return f"CASE {index} {cases} END"


def _run(folder: Path, url: str) -> tuple[float, float]:
    """Run the command. Returns the seconds that it took, and its peak memory in MB."""
    code = (
        "import json, resource, sys, time\n"
        "from postroad.cli.app import main\n"
        "sys.argv = ['postroad', 'campaign', 'forecast', 'news', '--json']\n"
        "try:\n    main()\n"
        "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )
    environment = {**os.environ, "POSTROAD_DATABASE_URL": url, "POSTROAD_STATE_DIR": str(folder / "state")}
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    took = time.monotonic() - begun
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    found = json.loads(done.stdout)
    assert round(found["messages"]) == 2 * found["recipients"]
    peak = int(done.stderr.split()[-1])
    return took, peak / (1024 if sys.platform != "darwin" else 1024 * 1024)
