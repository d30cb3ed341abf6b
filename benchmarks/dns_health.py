"""`benchmarks dns`: our DNS checks of many domains and checkdmarc's, on one real name server, in one run."""

from __future__ import annotations

import json
import sys
from collections import defaultdict

from msgspec import Struct, convert, field

from benchmarks import domains, far, nsd
from benchmarks.contestants import ENVS, OURS, Contestant, DidNotRun
from benchmarks.figures import Figure, Measure, compared, median

CHECKDMARC = "checkdmarc"
FAR_MS = 10.0
"""Between a resolver in the same network and a public one."""

NEAR = Measure(name="domains/s checked by DNS, name server on loopback", bar=2, at_least=True)
FAR = Measure(name=f"domains/s checked by DNS, name server {FAR_MS:.0f} ms away", bar=20, at_least=True)
MEASURES = (NEAR, FAR)

LIMIT_S = 600.0
"""For all domains of a round."""


class Effort(Struct, frozen=True, kw_only=True):
    """Domains of a round: fewer where who waits for each answer takes minutes for them."""

    rounds: int = 3
    near: int = 1_000
    far: int = 100


QUICK = Effort(rounds=1, near=50, far=20)


class Checked(Struct, frozen=True, kw_only=True):
    """What a program says of one round. ``well``: of how many domains it found nothing amiss."""

    seconds: float
    cpu_s: float
    well: int
    versions: dict[str, str]
    how: str
    source: str


Rounds = defaultdict[str, defaultdict[str, list[Checked]]]


class Found(Struct, kw_only=True):
    """Rounds by measure and contestant; reasons of who has none."""

    server: str
    rounds: Rounds = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    missing: dict[str, str] = field(default_factory=dict)

    def figures(self) -> list[Figure]:
        found = []
        for measure in MEASURES:
            paces = {
                name: median([each.well / each.seconds for each in rounds])
                for name, rounds in self.rounds[measure.name].items()
            }
            found.append(compared(measure, paces[OURS], CHECKDMARC, paces.get(CHECKDMARC)))
        return found

    def table(self) -> str:
        """Versions, settings and processor time of both; of one that has no figures, why."""
        lines = ["| | versions | CPU per domain, ms | how | settings after |", "|---|---|---:|---|---|"]
        for name, rounds in self.rounds[NEAR.name].items():
            one = rounds[0]
            versions = ", ".join(f"{package} {version}" for package, version in one.versions.items())
            cpu_ms = median([each.cpu_s / each.well for each in rounds]) * 1000
            lines.append(f"| {name} | {versions} | {cpu_ms:.1f} | {one.how} | {one.source} |")
        lines += [f"| {name} | no figures: {reason} | | | |" for name, reason in self.missing.items()]
        return "\n".join(lines) + "\n"


async def compare(effort: Effort) -> Found:
    """Let both check all domains, round by round, each time in a new process that knows nothing yet."""
    async with nsd.serving(domains.zone(effort.near)) as server, far.away(server.port, FAR_MS) as far_port:
        found = Found(server=server.version)
        for n in range(effort.rounds):
            for measure, port, count in ((NEAR, server.port, effort.near), (FAR, far_port, effort.far)):
                for name in (OURS, CHECKDMARC):
                    if name not in found.missing:
                        print(f"round {n + 1}/{effort.rounds}: {name}, {measure.name}", file=sys.stderr, flush=True)
                        await _round(found, measure, name, port, count)
    return found


async def _round(found: Found, measure: Measure, name: str, port: int, count: int) -> None:
    try:
        checked = await _checked(name, port, count)
    except DidNotRun as reason:
        if name == OURS:
            raise
        found.missing[name] = str(reason)
        # Half of its figures would be medians of other rounds than ours.
        for by_name in found.rounds.values():
            by_name.pop(name, None)
    else:
        found.rounds[measure.name][name].append(checked)


async def _checked(name: str, port: int, count: int) -> Checked:
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
