"""`benchmarks delivery`: from the queue to a 250 and its row in SQL, with its peers, on one sink.

The upper limits are measured too: Postfix's smtp-source, which sends one prepared message repeatedly, and bare RSA
signing.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from msgspec import Struct, field
from msgspec.structs import replace

from benchmarks import campaign_folder
from benchmarks.contestants import Contestant, DidNotRun, Pace, Settings
from benchmarks.figures import Figure, Measure, alone, compared, median
from benchmarks.mailers import NODEMAILER, OUR_ENTRIES, OURS, PEER_SIGNING, PEERS, Entry, Peer, Place, Signing
from benchmarks.ours_delivery import FOLDER
from benchmarks.server import Server
from benchmarks.sink import SOURCE_SESSIONS, Sink, running_sink, source_pace
from postroad.app.context import open_context
from postroad.campaign.status import summary
from postroad.mail.dkim import parse_key
from postroad.settings import Settings as OurSettings
from postroad.store.ledger import TouchState

SOURCE = f"smtp-source -s {SOURCE_SESSIONS} -d"
RSA = "bare RSA signing, one core"

ONE = Measure(name="messages/s, one process", bar=1, at_least=True)
SIGNED = Measure(name="messages/s, DKIM rsa-2048, one process", bar=1, at_least=True)
SECOND = Measure(name="messages/s, two processes : one process", bar=1.7, at_least=True)
MEASURES = (ONE, SIGNED, SECOND)

OWN_BARS = {(ONE, NODEMAILER): 12.0, (ONE, SOURCE): 0.5, (SIGNED, NODEMAILER): 6.0, (SIGNED, RSA): 0.7}
"""Where the bar is another than being ahead: of these peers and limits there must be a figure."""

MESSAGE_BYTES = 3_300
"""What a message of ours has on the wire; smtp-source sends as many."""

WARM = 0.2
FEWEST, MOST = 4_000, 100_000
"""Ours is counted in what the recorder writes, which is many at once."""


class Effort(Struct, frozen=True, kw_only=True):
    """Rounds, and seconds of work a round and contestant."""

    rounds: int = 5
    work_s: float = 3.0


QUICK = Effort(rounds=1, work_s=0.5)


class Run(NamedTuple):
    """The program of an entry, counted in messages of its own pace."""

    entry: Entry
    contestant: Contestant
    messages: int

    def at(self, pace: Pace, work_s: float) -> Run:
        """As many messages as it sends in that time, and not too few to measure."""
        return self._replace(messages=round(min(max(pace.jobs_per_s * work_s, self.messages), MOST)))


class Found(Struct, kw_only=True):
    """Samples, settings and reasons, by label."""

    paces: dict[str, list[Pace]] = field(default_factory=lambda: defaultdict(list))
    redis_us: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    settings: dict[str, Settings] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def rate(self, label: str) -> float | None:
        paces = self.paces.get(label)
        return median([pace.jobs_per_s for pace in paces]) if paces else None

    def figures(self) -> list[Figure]:
        found: list[Figure] = []
        for measure, signing, limit in ((ONE, Signing.NONE, SOURCE), (SIGNED, Signing.RSA, RSA)):
            ours = self.rate(Entry(OURS, signing).label) or 0
            theirs = {peer.name: self.rate(Entry(peer.name, signing).label) for peer in PEERS}
            for name, rate in {**theirs, limit: self.rate(limit)}.items():
                bar = OWN_BARS.get((measure, name))
                if rate is not None or bar is not None:
                    raised = Measure(name=measure.name, bar=bar or measure.bar, at_least=True)
                    found.append(compared(raised, ours, name, rate))
        one, two = (self.rate(Entry(OURS, processes=processes).label) for processes in (1, 2))
        return [*found, alone(SECOND, two / one if two and one else 0)]

    def table(self) -> str:
        """Pace and CPU time, which says more than the pace where the machine is busy."""
        lines = [
            "| | messages/s | CPU of its processes per message, µs | Redis CPU per message, µs |",
            "|---|---:|---:|---:|",
        ]
        for label, paces in self.paces.items():
            cpu_us = median([pace.cpu_us for pace in paces])
            redis = f"{median(self.redis_us[label]):.1f}" if self.redis_us[label] else ""
            lines.append(f"| {label} | {self.rate(label):,.0f} | {cpu_us:.1f} | {redis} |")
        return "\n".join(lines) + "\n"


class _Course(NamedTuple):
    """Where all take their turns, and what comes of it."""

    server: Server
    effort: Effort
    found: Found
    place: Place
    runs: list[Run]


async def deliver(server: Server, effort: Effort) -> Found:
    """Let all take turns, round by round. A contestant that does not run has a reason instead of figures."""
    found = Found()
    with tempfile.TemporaryDirectory(prefix="postroad-bench-") as folder:
        try:
            async with running_sink() as sink:
                await _measure(_Course(server, effort, found, Place(sink, Path(folder)), []))
        except DidNotRun as reason:
            for label in (OURS, *(peer.name for peer in PEERS), SOURCE):
                found.missing.setdefault(label, str(reason))
    return found


async def _measure(course: _Course) -> None:
    for entry in OUR_ENTRIES:
        await _guarded(course.found, entry.label, _enter(course, entry))
    for peer in PEERS:
        for signing in PEER_SIGNING:
            entry = Entry(peer.name, signing)
            await _guarded(course.found, entry.label, _enter_fastest(course, peer, entry))
    await _rounds(course)


async def _rounds(course: _Course) -> None:
    effort, found, place = course.effort, course.found, course.place
    key = parse_key(place.rsa_key.read_bytes(), where=str(place.rsa_key))
    assert isinstance(key, rsa.RSAPrivateKey)
    source_messages = FEWEST
    for n in range(effort.rounds):
        for run in course.runs:
            if run.entry.label not in found.missing:
                _say(f"round {n + 1}/{effort.rounds}: {run.entry.label}, {run.messages:,} messages")
                await _guarded(found, run.entry.label, _turn(course, run))
        _say(f"round {n + 1}/{effort.rounds}: {SOURCE}, {RSA}")
        await _guarded(found, SOURCE, _source_turn(found, place.sink, source_messages))
        found.paces[RSA].append(_sign(key, effort.work_s / 3))
        if found.paces.get(SOURCE):
            source_messages = round(found.paces[SOURCE][-1].jobs_per_s * effort.work_s)


async def _guarded(found: Found, label: str, step: Awaitable[None]) -> None:
    try:
        await step
    except DidNotRun as reason:
        found.missing[label] = str(reason)
        found.paces.pop(label, None)
        _say(f"{label}: {reason}")


async def _enter(course: _Course, entry: Entry) -> None:
    """Ours takes part, with as many messages as it sends in a turn."""
    _say(f"{entry.label}: pace")
    first = Run(entry, course.place.ours(entry.signing), FEWEST)
    # Its settings are the same, however it signs.
    course.found.settings.setdefault(OURS, await first.contestant.describe())
    pace, _ = await work(course.server, first)
    course.runs.append(first.at(pace, course.effort.work_s))


async def _enter_fastest(course: _Course, peer: Peer, entry: Entry) -> None:
    """A peer takes part at the concurrency at which it is fastest."""
    looks: list[tuple[float, Run]] = []
    for concurrency in peer.concurrency:
        _say(f"{entry.label}: pace at concurrency {concurrency}")
        first = Run(entry, course.place.peer(peer, entry.signing, concurrency), peer.fewest)
        pace, _ = await work(course.server, first)
        looks.append((pace.jobs_per_s, first.at(pace, course.effort.work_s)))
    _, fastest = max(looks, key=lambda look: look[0])
    its = await fastest.contestant.describe()
    tried = ", ".join(map(str, peer.concurrency))
    course.found.settings[entry.label] = replace(its, worker=f"{its.worker}; the fastest of concurrency {tried}")
    course.runs.append(fastest)


async def _turn(course: _Course, run: Run) -> None:
    pace, redis_us = await work(course.server, run)
    course.found.paces[run.entry.label].append(pace)
    course.found.redis_us[run.entry.label].append(redis_us)


async def work(server: Server, run: Run) -> tuple[Pace, float]:
    """Fill the queue and let it be emptied. Returns the pace, and the CPU time of Redis per message, µs."""
    warm = round(run.messages * WARM)
    ours = run.contestant.environment.get(FOLDER)
    await server.empty()
    if ours:
        shutil.rmtree(Path(ours) / "state", ignore_errors=True)
    await run.contestant.enqueue(server.url, warm=warm, jobs=run.messages, payload_bytes=0)
    before_s = await server.cpu_s()
    pace = await run.contestant.work(server.url, warm=warm, jobs=run.messages, workers=run.entry.processes)
    redis_us = (await server.cpu_s() - before_s) * 1e6 / (warm + run.messages)
    if ours:
        await _require_accepted(Path(ours), warm + run.messages)
    return pace, redis_us


async def _require_accepted(folder: Path, messages: int) -> None:
    """Raise DidNotRun unless the ledger has every message as accepted."""
    async with open_context(OurSettings.load(folder / "postroad.toml")) as context:
        counts = summary(context.engine, campaign_folder.CAMPAIGN).counts
    accepted = counts[TouchState.ACCEPTED]
    if accepted != messages:
        raise DidNotRun(f"the ledger has {accepted} of {messages} as accepted: {dict(counts)}")


async def _source_turn(found: Found, sink: Sink, messages: int) -> None:
    found.paces[SOURCE].append(await source_pace(sink, messages=messages, size_bytes=MESSAGE_BYTES))


def _sign(key: rsa.RSAPrivateKey, seconds: float) -> Pace:
    """How fast one core signs as DKIM does (RFC 8301: rsa-sha256), and does nothing else."""
    what, signatures = b"h" * 900, 0
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    while (took_s := time.perf_counter() - start_s) < seconds:
        key.sign(what, padding.PKCS1v15(), hashes.SHA256())
        signatures += 1
    return Pace(signatures / took_s, (time.process_time() - start_cpu_s) / signatures * 1e6)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
