"""`benchmarks dns`: our checks of many domains beside checkdmarc's, of one real name server, in one run."""

from __future__ import annotations

import json
import sys
from collections import defaultdict

from msgspec import Struct, convert, field

from benchmarks import domains, nsd
from benchmarks.contestants import ENVS, OURS, Contestant, DidNotRun
from benchmarks.figures import Figure, Measure, beside, median

CHECKDMARC = "checkdmarc"
PACE = Measure(name="domains/s checked by DNS", bar=10, at_least=True)
MEASURES = (PACE,)

LIMIT_S = 600.0
"""For all domains of a round."""


class Effort(Struct, frozen=True, kw_only=True):
    rounds: int = 3
    domains: int = 1_000


QUICK = Effort(rounds=1, domains=50)


class Checked(Struct, frozen=True, kw_only=True):
    """What a program says of one round. ``well``: of how many domains it found nothing amiss."""

    seconds: float
    cpu_s: float
    well: int
    versions: dict[str, str]
    how: str
    source: str


class Found(Struct, kw_only=True):
    """Rounds of each contestant; reasons of who has none; what was asked."""

    domains: int
    server: str = ""
    rounds: dict[str, list[Checked]] = field(default_factory=lambda: defaultdict(list))
    missing: dict[str, str] = field(default_factory=dict)

    def figures(self) -> list[Figure]:
        theirs = None if CHECKDMARC in self.missing else self._pace(CHECKDMARC)
        return [beside(PACE, self._pace(OURS), CHECKDMARC, theirs)]

    def table(self) -> str:
        """Versions, settings and processor time of both; of one that has no figures, why."""
        lines = ["| | versions | CPU per domain, ms | how | settings after |", "|---|---|---:|---|---|"]
        for name, rounds in self.rounds.items():
            one = rounds[0]
            versions = ", ".join(f"{package} {version}" for package, version in one.versions.items())
            cpu_ms = median([each.cpu_s for each in rounds]) / self.domains * 1000
            lines.append(f"| {name} | {versions} | {cpu_ms:.1f} | {one.how} | {one.source} |")
        lines += [f"| {name} | no figures: {reason} | | | |" for name, reason in self.missing.items()]
        return "\n".join(lines) + "\n"

    def _pace(self, name: str) -> float:
        return median([self.domains / each.seconds for each in self.rounds[name]])


async def compare(effort: Effort) -> Found:
    """Let both check all domains, round by round, each time in a new process that knows nothing yet."""
    found = Found(domains=effort.domains)
    async with nsd.serving(domains.zone(effort.domains)) as server:
        found.server = server.version
        for n in range(effort.rounds):
            for name in (OURS, CHECKDMARC):
                if name in found.missing:
                    continue
                print(f"round {n + 1}/{effort.rounds}: {name}, {effort.domains:,} domains", file=sys.stderr, flush=True)
                try:
                    found.rounds[name].append(await _round(name, server.port, effort.domains))
                except DidNotRun as reason:
                    if name == OURS:
                        raise
                    found.missing[name] = str(reason)
                    found.rounds.pop(name, None)
    return found


async def _round(name: str, port: int, count: int) -> Checked:
    said = await _contestant(name).say("check", "127.0.0.1", str(port), str(count), limit_s=LIMIT_S)
    checked = convert(json.loads(said), Checked)
    if checked.well != count:
        raise DidNotRun(f"it found {checked.well} of {count} domains well, and all are")
    return checked


def _contestant(name: str) -> Contestant:
    if name == OURS:
        return Contestant(OURS, (sys.executable, "-m", "benchmarks.ours_dns"), {})
    python = ENVS / "checkdmarc/bin/python"
    if not python.exists():
        raise DidNotRun("not installed; `make bench-peers` does it")
    return Contestant(name, (str(python), "-m", "benchmarks.peers.checkdmarc.peer"), {})
