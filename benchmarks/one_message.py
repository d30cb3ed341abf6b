"""`benchmarks message`: CPU cost of one message: each part, the whole, and the cost of signing.

CPU time, which holds on a busy machine too; medians of several rounds. docs/explanation/performance.md shows it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from benchmarks.contestants import ROOT
from benchmarks.costs import Cost, costs
from benchmarks.delivery import Run, work
from benchmarks.figures import median
from benchmarks.mailers import OURS, Entry, Place, Signing
from benchmarks.message import measured
from benchmarks.picture import picture_of
from benchmarks.report import write_section
from benchmarks.server import Server
from benchmarks.sink import running_sink

PAGE = ROOT / "docs/explanation/performance.md"
PICTURE = ROOT / "docs/images/one-message.svg"


class Effort(Struct, frozen=True, kw_only=True):
    """Rounds, and messages in each."""

    rounds: int = 5
    messages: int = 10_000


QUICK = Effort(rounds=1, messages=4_000)


class Found(Struct, frozen=True, kw_only=True):
    """Of one message: each part, a whole worker, and what is done to a message alone with its µs of CPU."""

    parts: list[Cost]
    whole: Cost
    alone: list[tuple[str, float]]

    def tables(self) -> list[str]:
        ours_us, redis_us = (sum(column) for column in zip(*(cost[2:] for cost in self.parts), strict=True))
        together = Cost("together", "", ours_us, redis_us)
        lines = ["| part | our process, µs | Redis, µs | what it is |", "|---|---:|---:|---|"]
        lines += [
            f"| {cost.part} | {cost.ours_us:.0f} | {cost.redis_us:.0f} | {cost.what} |"
            for cost in (*self.parts, together, self.whole)
        ]
        alone = ["| one message of 9 kB | CPU, µs |", "|---|---:|"]
        alone += [f"| {what} | {us:,.0f} |" for what, us in self.alone]
        return ["\n".join(lines), "\n".join(alone)]

    def write(self, where: str) -> None:
        """Write the tables into the page, and the picture."""
        parts, alone = self.tables()
        write_section("parts", [parts, f"({where})"], PAGE)
        write_section("alone", [alone], PAGE)
        PICTURE.write_text(picture_of(self.parts), "utf-8")


async def measure(server: Server, effort: Effort) -> Found:
    """Raises DidNotRun where Postfix's smtp-sink is not installed."""
    parts: list[list[Cost]] = []
    whole: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="postroad-bench-") as folder:
        async with running_sink() as sink:
            run = Run(Entry(OURS), Place(sink, Path(folder)).ours(Signing.NONE), effort.messages)
            for n in range(effort.rounds):
                print(f"round {n + 1}/{effort.rounds}", file=sys.stderr, flush=True)
                parts.append(await costs(server, sink, effort.messages))
                pace, redis_us = await work(server, run)
                whole.append(
                    Cost("a whole worker", "all of it at once, and what is between the parts", pace.cpu_us, redis_us)
                )
    return Found(parts=[_median(part) for part in zip(*parts, strict=True)], whole=_median(whole), alone=[*measured()])


def _median(samples: Sequence[Cost]) -> Cost:
    return samples[0]._replace(
        ours_us=median([cost.ours_us for cost in samples]), redis_us=median([cost.redis_us for cost in samples])
    )
