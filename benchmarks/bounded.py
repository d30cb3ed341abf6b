"""`benchmarks growth`: how long locks are held and scripts run on large ledgers and queues, and whether that grows."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from benchmarks import bounded_ledger, bounded_scripts
from benchmarks.bounded_ledger import growing
from benchmarks.bounded_scripts import STEP_COMMANDS, ScriptCost
from benchmarks.contestants import DidNotRun
from benchmarks.databases import POSTGRESQL, SQLITE, make_empty, running_postgresql
from benchmarks.figures import Figure, Measure, alone
from benchmarks.server import Server
from benchmarks.transactions import Transaction
from benchmarks.write_sites import ROWS_OF_THE_CALLER, write_sites
from postroad.store import migrate
from postroad.store.engine import open_engine

LOCK_MS = 250.0
SCRIPT_MS = 50.0
SLACK = 20_000
"""Instructions or rows by which the transactions of two ledgers may differ."""


class Effort(Struct, frozen=True, kw_only=True):
    """Sizes in recipients, touches, events and suppressions of a ledger, and in jobs of a queue."""

    sizes: tuple[int, int] = (100_000, 1_000_000)


QUICK = Effort(sizes=(6_000, 12_000))


def _sites() -> list[str]:
    return sorted(write_sites(Path(__file__).parents[1]) - ROWS_OF_THE_CALLER.keys())


def _scripts_grow(sizes: tuple[int, int]) -> Measure:
    return Measure(name=f"scripts that do more at {sizes[1]:,} jobs than at {sizes[0]:,}", bar=0)


def _ledger_grows(database: str, sizes: tuple[int, int]) -> Measure:
    return Measure(name=f"{database}: transactions that do more at {sizes[1]:,} touches than at {sizes[0]:,}", bar=0)


def _lock(database: str, site: str, size: int) -> Measure:
    return Measure(name=f"{database}: longest transaction of {site} at {size:,} touches, ms", bar=LOCK_MS)


def _script(name: str, size: int) -> Measure:
    return Measure(name=f"longest call of script {name} at {size:,} jobs, ms", bar=SCRIPT_MS)


def measures(effort: Effort) -> list[Measure]:
    return [
        _scripts_grow(effort.sizes),
        *(_script(name, size) for size in effort.sizes for name in sorted(bounded_scripts.CALLS)),
        *(_ledger_grows(database, effort.sizes) for database in (SQLITE, POSTGRESQL)),
        *(
            _lock(database, site, size)
            for database in (SQLITE, POSTGRESQL)
            for size in effort.sizes
            for site in _sites()
        ),
    ]


async def bound(server: Server, effort: Effort) -> list[Figure]:
    """Measure scripts, then SQLite, then PostgreSQL where it is installed."""
    figures = _of_scripts(effort.sizes, [await _scripts(server, size) for size in effort.sizes])
    with TemporaryDirectory(prefix="postroad-bench-") as folder:
        urls = [f"sqlite:///{folder}/{size}.db" for size in effort.sizes]
        found = [await asyncio.to_thread(_ledger, url, size) for url, size in zip(urls, effort.sizes, strict=True)]
        figures += _of_ledgers(SQLITE, effort.sizes, found)
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(running_postgresql())
        except DidNotRun:
            return figures
        found = []
        for size in effort.sizes:
            await asyncio.to_thread(make_empty, url)
            found.append(await asyncio.to_thread(_ledger, url, size))
        figures += _of_ledgers(POSTGRESQL, effort.sizes, found)
    return figures


async def _scripts(server: Server, size: int) -> dict[str, ScriptCost]:
    await server.empty()
    return await bounded_scripts.measure(server.url, server.client, size)


def _ledger(url: str, size: int) -> dict[str, Transaction]:
    engine = open_engine(url)
    try:
        migrate.upgrade(engine)
        return bounded_ledger.measure(engine, size)
    finally:
        engine.dispose()


def _of_scripts(sizes: tuple[int, int], found: list[dict[str, ScriptCost]]) -> list[Figure]:
    small, large = found
    more = [name for name in large if large[name].commands > max(1.3 * small[name].commands + 50, STEP_COMMANDS)]
    _name_growing("script", more)
    figures = [alone(_scripts_grow(sizes), len(more))]
    for size, costs in zip(sizes, found, strict=True):
        figures += [alone(_script(name, size), costs[name].longest_ms) for name in sorted(costs)]
    return figures


def _of_ledgers(database: str, sizes: tuple[int, int], found: list[dict[str, Transaction]]) -> list[Figure]:
    small, large = found
    more = growing(small, large, SLACK)
    _name_growing(f"{database}: transaction", more)
    figures = [alone(_ledger_grows(database, sizes), len(more))]
    for size, worst in zip(sizes, found, strict=True):
        figures += [alone(_lock(database, site, size), _held_ms(worst, site)) for site in _sites()]
    return figures


def _name_growing(kind: str, names: Sequence[str]) -> None:
    for name in names:
        print(f"{kind} that does more on the larger size: {name}", file=sys.stderr)


def _held_ms(worst: Mapping[str, Transaction], site: str) -> float:
    """A site that no operation reached has no bound."""
    return worst[site].seconds * 1000 if site in worst else float("inf")
