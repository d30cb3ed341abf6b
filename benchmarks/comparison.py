"""`benchmarks queue`: this queue and its peers, on one server, in one run."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Awaitable, Sequence

from msgspec import Struct, field

from benchmarks.contestants import NODE, OURS, PEERS, PYTHON_BULLMQ, Contestant, DidNotRun, Settings, ours, peer
from benchmarks.figures import Figure, Measure, alone, compared, median
from benchmarks.server import Server

PAYLOAD_BYTES = 100

ENQUEUE = Measure(name="bulk enqueue, jobs/s", bar=1, at_least=True)
ONE = Measure(name="no-op jobs/s, one process", bar=1, at_least=True)
TWO = Measure(name="no-op jobs/s, two processes", bar=1, at_least=True)
CPU = Measure(name="Redis CPU per no-op job, µs", bar=1)
BYTES = Measure(name="Redis memory per queued job beyond its payload, bytes", bar=1)
BYTES_ALONE = Measure(name=BYTES.name, bar=150)
MEASURES = (ENQUEUE, ONE, TWO, CPU, BYTES)

HIGHER_BARS = {(ENQUEUE.name, NODE): 4.0, (ONE.name, NODE): 5.0, (ONE.name, PYTHON_BULLMQ): 25.0}
"""Where being ahead is not enough."""


class Effort(Struct, frozen=True, kw_only=True):
    """How much is measured: rounds, seconds of work a round and contestant, jobs in memory."""

    rounds: int = 5
    work_s: float = 3.0
    queued_jobs: int = 20_000


QUICK = Effort(rounds=1, work_s=0.7, queued_jobs=5_000)

FEWEST, MOST = 1_000, 200_000
TRIAL = 4_000
"""Jobs by which the pace is estimated. The fastest handles a thousand before it reports for the first time."""
WARM = 0.2
"""Part of the jobs that goes before the measured ones."""


class Comparison(Struct, kw_only=True):
    """Samples by measure and contestant; settings of who ran; reasons of who did not."""

    asked: list[str]
    samples: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    settings: dict[str, Settings] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def figures(self) -> list[Figure]:
        found: list[Figure] = []
        for measure in MEASURES:
            by_name = {name: median(samples) for name, samples in self.samples[measure.name].items()}
            if measure is BYTES:
                found.append(alone(BYTES_ALONE, by_name[OURS]))
            for name in self.asked:
                bar = HIGHER_BARS.get((measure.name, name))
                # A peer that does not run is reported separately. Only a bar that names it needs it.
                if name in by_name or bar is not None:
                    raised = measure if bar is None else Measure(name=measure.name, bar=bar, at_least=measure.at_least)
                    found.append(compared(raised, by_name[OURS], name, by_name.get(name)))
        return found


async def compare(server: Server, effort: Effort, only: Sequence[str]) -> Comparison:
    """Measure all contestants, round by round, so that a bad minute of the machine is shared."""
    comparison = Comparison(asked=[name for name in PEERS if not only or name in only])
    jobs: dict[str, int] = {}
    running: dict[str, Contestant] = {}
    for name in (OURS, *comparison.asked):
        await _guarded(comparison, name, _enter(comparison, server, effort, name, running, jobs))
    for n in range(effort.rounds):
        for name, contestant in list(running.items()):
            if name not in comparison.missing:
                _say(f"round {n + 1}/{effort.rounds}: {name}, {jobs[name]:,} jobs")
                await _guarded(comparison, name, _round(comparison, server, contestant, jobs[name]))
    return comparison


async def _guarded(comparison: Comparison, name: str, step: Awaitable[None]) -> None:
    try:
        await step
    except DidNotRun as reason:
        if name == OURS:
            raise
        comparison.missing[name] = str(reason)
        # Half a contestant's figures would be medians of other rounds than ours.
        for by_name in comparison.samples.values():
            by_name.pop(name, None)
        _say(f"{name}: {reason}")


async def _enter(
    comparison: Comparison,
    server: Server,
    effort: Effort,
    name: str,
    running: dict[str, Contestant],
    jobs: dict[str, int],
) -> None:
    """Memory, which needs no repetition, and how many jobs are worth a round."""
    contestant = ours() if name == OURS else peer(name)
    comparison.settings[name] = await contestant.describe()
    _say(f"{name}: memory and pace")
    await server.empty()
    await contestant.enqueue(server.url, warm=0, jobs=1, payload_bytes=PAYLOAD_BYTES)
    before = await server.memory_bytes()
    await contestant.enqueue(server.url, warm=0, jobs=effort.queued_jobs, payload_bytes=PAYLOAD_BYTES)
    grown = await server.memory_bytes() - before
    comparison.samples[BYTES.name][name].append(grown / effort.queued_jobs - PAYLOAD_BYTES)
    await server.empty()
    await contestant.enqueue(server.url, warm=0, jobs=TRIAL, payload_bytes=PAYLOAD_BYTES)
    pace = await contestant.work(server.url, warm=TRIAL // 5, jobs=TRIAL - TRIAL // 5, workers=1)
    jobs[name] = round(min(max(pace.jobs_per_s * effort.work_s, FEWEST), MOST))
    running[name] = contestant


async def _round(comparison: Comparison, server: Server, contestant: Contestant, jobs: int) -> None:
    warm = round(jobs * WARM)
    for measure, workers in ((ONE, 1), (TWO, 2)):
        await server.empty()
        took_s = await contestant.enqueue(server.url, warm=warm, jobs=jobs, payload_bytes=PAYLOAD_BYTES)
        comparison.samples[ENQUEUE.name][contestant.name].append(jobs / took_s)
        before_s = await server.cpu_s()
        pace = await contestant.work(server.url, warm=warm, jobs=jobs, workers=workers)
        comparison.samples[measure.name][contestant.name].append(pace.jobs_per_s)
        if workers == 1:
            cpu_us = (await server.cpu_s() - before_s) * 1e6
            comparison.samples[CPU.name][contestant.name].append(cpu_us / (warm + jobs))


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
