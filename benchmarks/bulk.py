"""`benchmarks import` and `benchmarks submit`: many recipients from a CSV into the store, and on to the queue."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct, field

from benchmarks import campaign_folder
from benchmarks.contestants import ROOT, DidNotRun, last_words
from benchmarks.databases import POSTGRESQL, SQLITE, make_empty, running_postgresql
from benchmarks.figures import Figure, Measure, alone, median
from benchmarks.growth import FLAT
from benchmarks.server import Server

STEP_S = 900.0
MIB = 2**20


class Effort(Struct, frozen=True, kw_only=True):
    """``recipients``: the sizes of audience, the least and the one that bars are for. ``rounds`` of importing."""

    recipients: tuple[int, int] = (100_000, 1_000_000)
    rounds: int = 1


QUICK = Effort(recipients=(2_000, 10_000))


class Took(Struct, frozen=True):
    seconds: float
    cpu_s: float
    peak_bytes: int


class Found(Struct, kw_only=True):
    """What steps took, by database and number of recipients, and why a database has no figures."""

    effort: Effort
    imported: dict[tuple[str, int], list[Took]] = field(default_factory=dict)
    submitted: dict[tuple[str, int], list[Took]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def table(self, of: dict[tuple[str, int], list[Took]]) -> str:
        lines = [
            "| | recipients | a second | CPU of the process for each, µs | peak memory, MiB |",
            "|---|---:|---:|---:|---:|",
        ]
        for (database, count), took in of.items():
            cpu_us = median([one.cpu_s for one in took]) / count * 1e6
            peak = max(one.peak_bytes for one in took) / MIB
            lines.append(f"| {database} | {count:,} | {_rate(count, took):,.0f} | {cpu_us:.1f} | {peak:.0f} |")
        lines += [f"| {database} | no figures: {reason} | | | |" for database, reason in self.missing.items()]
        return "\n".join(lines) + "\n"


def import_measures(effort: Effort) -> list[Measure]:
    return [Measure(name=f"rows/s of a CSV of {effort.recipients[1]:,} imported, {SQLITE}", bar=50_000, at_least=True)]


def submit_measures(effort: Effort) -> list[Measure]:
    small, large = effort.recipients
    return [
        Measure(name=f"recipients/s of {large:,} planned and submitted, {SQLITE}", bar=20_000, at_least=True),
        Measure(name=f"peak memory of it, MiB, {SQLITE}", bar=300),
        Measure(name=f"peak memory of {large:,} recipients : {small:,}, {SQLITE}", bar=FLAT),
    ]


def import_figures(found: Found) -> list[Figure]:
    count = found.effort.recipients[1]
    (measure,) = import_measures(found.effort)
    return [alone(measure, _rate(count, found.imported[SQLITE, count]))]


def submit_figures(found: Found) -> list[Figure]:
    small, large = found.effort.recipients
    took = found.submitted[SQLITE, large]
    peak = max(one.peak_bytes for one in took)
    growth = peak / max(one.peak_bytes for one in found.submitted[SQLITE, small])
    values = (_rate(large, took), peak / MIB, growth)
    return [alone(measure, value) for measure, value in zip(submit_measures(found.effort), values, strict=True)]


def _rate(count: int, took: Sequence[Took]) -> float:
    return count / median([one.seconds for one in took])


async def measure(server: Server, effort: Effort, *, submit: bool) -> Found:
    """Import, and submit where asked for, on each database and with each number of recipients."""
    found = Found(effort=effort)
    for database in (SQLITE, POSTGRESQL):
        async with AsyncExitStack() as stack:
            try:
                url = await stack.enter_async_context(running_postgresql()) if database == POSTGRESQL else None
                for count in effort.recipients if submit else effort.recipients[1:]:
                    for _ in range(1 if submit else effort.rounds):
                        await _measure(server, found, database, url, count, submit=submit)
            except DidNotRun as reason:
                if database == SQLITE:
                    raise
                found.missing[database] = str(reason)
    return found


async def _measure(server: Server, found: Found, database: str, url: str | None, count: int, *, submit: bool) -> None:
    print(f"{database}: {count:,} recipients", file=sys.stderr, flush=True)
    await server.empty()
    if url is not None:
        await asyncio.to_thread(make_empty, url)
    with tempfile.TemporaryDirectory(prefix="postroad-bench-") as name:
        folder = Path(name)
        campaign_folder.build(folder, campaign_folder.FolderOptions())
        await asyncio.to_thread(campaign_folder.write_recipients, folder / "readers.csv", count)
        took = await _step("import", folder, server, url, count)
        found.imported.setdefault((database, count), []).append(took)
        if submit:
            took = await _step("submit", folder, server, url, count)
            found.submitted.setdefault((database, count), []).append(took)


async def _step(what: str, folder: Path, server: Server, database_url: str | None, count: int) -> Took:
    variables = {"POSTROAD_DATABASE_URL": database_url} if database_url else {}
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.bulk_step", what, str(folder), server.url, str(count)),
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
        try:
            async with asyncio.timeout(STEP_S):
                said, _ = await process.communicate()
        except TimeoutError:
            raise DidNotRun(f"{what} of {count:,} took more than {STEP_S:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise DidNotRun(f"{what} of {count:,} failed{last_words(errors)}")
    return Took(**json.loads(said))
