"""`benchmarks console`: time of each page of the console, and of what it reads, in a store of a month's mail."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from msgspec import Struct

from benchmarks.console_pages import page_paths, page_samples, signed_in
from benchmarks.console_store import PROVIDERS, SENDERS, StoreSize, fill_store
from benchmarks.databases import POSTGRESQL, SQLITE, running_postgresql
from benchmarks.figures import Figure, Measure, alone, median
from benchmarks.server import Server
from postroad.read_model.campaigns import campaign_lines, campaign_parts, campaign_touches, campaign_traffic
from postroad.read_model.now import accepted_per_minute, now_figures
from postroad.read_model.people import (
    audience_members,
    audiences,
    import_refusals,
    imports,
    suppression_counts,
    suppressions_of_reason,
)
from postroad.read_model.receivers import (
    OutcomesOf,
    TrafficWindow,
    receiver_events,
    receivers,
    reply_groups,
    window_start,
)
from postroad.read_model.returned import returned_counts, returned_mails
from postroad.read_model.undecided import undecided_counts, undecided_touches
from postroad.store.engine import open_engine, read
from postroad.store.ledger import TouchState
from postroad.store.migrate import upgrade
from postroad.store.outcome import DeliveryOutcome
from postroad.store.suppression import SuppressionReason

NOW_BAR_MS = 50.0
BARS_MS = {POSTGRESQL: 100.0, SQLITE: 200.0}


class Effort(Struct, frozen=True, kw_only=True):
    """How much is measured. ``rounds``: calls of each function and requests of each page, with different arguments."""

    size: StoreSize = StoreSize(touches=5_000_000, events=20_000_000)
    rounds: int = 40


QUICK = Effort(size=StoreSize(touches=20_000, events=80_000), rounds=5)

WARM_UP = 2
"""Calls and requests that are not counted."""

Read = Callable[[sa.Connection, datetime, int], object]
"""Takes a connection, the time, and the number of the round."""


def _receiver(now: datetime, n: int, outcome: DeliveryOutcome, window: TrafficWindow) -> OutcomesOf:
    since = window_start(window, now)
    return OutcomesOf(
        sender=f"sender-{n % SENDERS}", provider=PROVIDERS[n % len(PROVIDERS)], outcome=outcome, since=since
    )


def _now(connection: sa.Connection, now: datetime, _n: int) -> object:
    return now_figures(connection, now), accepted_per_minute(connection, now)


def _events(outcome: DeliveryOutcome) -> Read:
    return lambda connection, now, n: receiver_events(connection, _receiver(now, n, outcome, TrafficWindow.WEEK), now)


def _undecided(connection: sa.Connection, _now: datetime, n: int) -> object:
    counts = undecided_counts(connection)
    count = counts[n % len(counts)]
    return undecided_touches(connection, state=count.state, cause=count.cause)


READS: dict[str, Read] = {
    "Now": _now,
    **{
        f"Receivers of {window}": lambda connection, now, _n, window=window: receivers(connection, now, window)  # type: ignore[misc]
        for window in TrafficWindow
    },
    **{f"messages {outcome} at a receiver": _events(outcome) for outcome in DeliveryOutcome},
    "replies of a receiver": lambda connection, now, n: reply_groups(
        connection, _receiver(now, n, DeliveryOutcome.DEFERRED, TrafficWindow.WEEK), now
    ),
    "Campaigns": lambda connection, _now, _n: campaign_lines(connection),
    "a campaign": lambda connection, now, n: (
        campaign_parts(connection, f"campaign-{n % 10}"),
        campaign_traffic(connection, f"campaign-{n % 10}", now, TrafficWindow.WEEK),
    ),
    "messages of a campaign": lambda connection, _now, n: campaign_touches(
        connection, f"campaign-{n % 10}", state=list(TouchState)[n % len(TouchState)]
    ),
    "returned mail": lambda connection, now, _n: returned_counts(connection, window_start(TrafficWindow.WEEK, now)),
    "returned mails": lambda connection, now, n: returned_mails(
        connection, now, verdict="soft", rule=f"rule {n % 9}", since=window_start(TrafficWindow.WEEK, now)
    ),
    "Undecided": _undecided,
    "People": lambda connection, _now, _n: (audiences(connection), suppression_counts(connection)),
    "lists of people": lambda connection, _now, n: (
        audience_members(connection, "everyone"),
        imports(connection, "everyone"),
        import_refusals(connection, "everyone", 1),
        suppressions_of_reason(connection, list(SuppressionReason)[n % len(SuppressionReason)]),
    ),
}


def _page_name(path: str) -> str:
    return f"page {path}"


_NOW = ("Now", _page_name("/"), _page_name("/now/live"))


def measures(effort: Effort) -> list[Measure]:
    """Return what is measured: the median and the 95th percentile of each read and page on each database."""
    return [
        measure
        for database in (SQLITE, POSTGRESQL)
        for name in (*READS, *map(_page_name, page_paths()))
        for measure in _measures_of(name, database, effort)
    ]


def _measures_of(name: str, database: str, effort: Effort) -> list[Measure]:
    size = f"{effort.size.touches:,} touches and {effort.size.events:,} events"
    bar = NOW_BAR_MS if name in _NOW else BARS_MS[database]
    return [Measure(name=f"{name}, {what}, ms, {database}, {size}", bar=bar) for what in ("median", "95th percentile")]


async def console(server: Server, effort: Effort) -> list[Figure]:
    """Measure every read and every page on both databases. Raises DidNotRun if PostgreSQL is not installed."""
    figures: list[Figure] = []
    with TemporaryDirectory(prefix="postroad-bench-") as folder:
        url = f"sqlite:///{Path(folder) / 'postroad.db'}"
        figures += _figures(await _on_database(url, server, Path(folder), effort), SQLITE, effort)
    with TemporaryDirectory(prefix="postroad-bench-") as folder:
        async with running_postgresql() as url:
            figures += _figures(await _on_database(url, server, Path(folder), effort), POSTGRESQL, effort)
    return figures


def _figures(samples: Mapping[str, Sequence[float]], database: str, effort: Effort) -> list[Figure]:
    return [
        alone(measure, value)
        for name, of_name in samples.items()
        for measure, value in zip(
            _measures_of(name, database, effort), (median(of_name), percentile(of_name, 0.95)), strict=True
        )
    ]


async def _on_database(url: str, server: Server, state_dir: Path, effort: Effort) -> dict[str, list[float]]:
    """Return the times of each read and page, in milliseconds, by its name."""
    engine = open_engine(url)
    upgrade(engine)
    now = datetime.now(UTC).replace(microsecond=0)
    begun = time.perf_counter()
    fill_store(engine, effort.size, now)
    print(f"{engine.dialect.name}: filled in {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    samples = {
        name: [_milliseconds(engine, each, now, n) for n in range(-WARM_UP, effort.rounds)][WARM_UP:]
        for name, each in READS.items()
    }
    engine.dispose()
    async with signed_in(url, server.url, state_dir) as client:
        pages = await page_samples(client, effort.rounds, WARM_UP)
    return samples | {_page_name(path): of_page for path, of_page in pages.items()}


def _milliseconds(engine: sa.Engine, each: Read, now: datetime, n: int) -> float:
    begun = time.perf_counter()
    with read(engine) as connection:
        each(connection, now, n)
    return (time.perf_counter() - begun) * 1000


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that so large a share of them does not exceed."""
    return sorted(samples)[max(math.ceil(len(samples) * share) - 1, 0)]
