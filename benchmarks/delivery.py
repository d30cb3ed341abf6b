"""`benchmarks delivery`: from the queue to a 250 and the row that says so, beside BullMQ with Nodemailer, on one sink.

Beside the limits too: Postfix's smtp-source, which sends one ready message over and over, and bare RSA signing.
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

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from msgspec import Struct, field

from benchmarks import costs, house
from benchmarks.contestants import ENVS, ROOT, Contestant, DidNotRun, Pace, Settings
from benchmarks.costs import Cost
from benchmarks.figures import Figure, Measure, alone, beside, median
from benchmarks.ours_delivery import FOLDER
from benchmarks.server import Server
from benchmarks.sink import SOURCE_SESSIONS, Sink, running_sink, source_pace
from postroad.campaign.status import summary
from postroad.parts import open_parts
from postroad.settings import Settings as OurSettings
from postroad.store.ledger import TouchState

NODEMAILER = "BullMQ + Nodemailer"
SOURCE = f"smtp-source -s {SOURCE_SESSIONS} -d"
RSA = "bare RSA signing, one core"

ONE = "messages/s, one process"
SIGNED = "messages/s, DKIM rsa-2048, one process"
TO_NODEMAILER = Measure(name=ONE, bar=12, at_least=True)
TO_SOURCE = Measure(name=ONE, bar=0.5, at_least=True)
SIGNED_TO_NODEMAILER = Measure(name=SIGNED, bar=6, at_least=True)
SIGNED_TO_RSA = Measure(name=SIGNED, bar=0.7, at_least=True)
SECOND = Measure(name="messages/s, two processes : one process", bar=1.7, at_least=True)
MEASURES = (TO_NODEMAILER, TO_SOURCE, SIGNED_TO_NODEMAILER, SIGNED_TO_RSA, SECOND)

MESSAGE_BYTES = 3_300
"""What a message of ours has on the wire; smtp-source sends as many."""

WARM = 0.2
FEWEST, MOST = 500, 100_000
PEER_CONCURRENCY = (10, 20, 50)
"""The peer is measured at that of these at which it is fastest."""


class Effort(Struct, frozen=True, kw_only=True):
    """Rounds, and seconds of work a round and contestant."""

    rounds: int = 5
    work_s: float = 3.0
    costs: costs.Effort = costs.Effort()


QUICK = Effort(rounds=1, work_s=0.5, costs=costs.QUICK)


class Run(NamedTuple):
    """One way to send: a contestant with so many processes, counted in messages of its own pace."""

    label: str
    contestant: Contestant
    workers: int
    messages: int


class Found(Struct, kw_only=True):
    """Samples, settings and reasons, by label."""

    paces: dict[str, list[Pace]] = field(default_factory=lambda: defaultdict(list))
    redis_us: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    settings: dict[str, Settings] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    costs: list[Cost] = field(default_factory=list)

    def rate(self, label: str) -> float | None:
        paces = self.paces.get(label)
        return median([pace.jobs_per_s for pace in paces]) if paces else None

    def figures(self) -> list[Figure]:
        ours, two, signed = self.rate(OURS), self.rate(OURS_TWICE), self.rate(OURS_SIGNED)
        return [
            beside(TO_NODEMAILER, ours or 0, NODEMAILER, self.rate(NODEMAILER)),
            beside(TO_SOURCE, ours or 0, SOURCE, self.rate(SOURCE)),
            beside(SIGNED_TO_NODEMAILER, signed or 0, NODEMAILER, self.rate(NODEMAILER_SIGNED)),
            beside(SIGNED_TO_RSA, signed or 0, RSA, self.rate(RSA)),
            alone(SECOND, two / ours if two and ours else 0),
        ]

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


OURS = "postroad"
OURS_TWICE = "postroad, two processes"
OURS_SIGNED = "postroad, DKIM rsa-2048"
NODEMAILER_SIGNED = f"{NODEMAILER}, DKIM rsa-2048"


async def deliver(server: Server, effort: Effort) -> Found:
    """Let all take turns, round by round. A contestant that does not run has a reason instead of figures."""
    found = Found()
    with tempfile.TemporaryDirectory(prefix="postroad-bench-") as folder:
        key = _write_key(Path(folder) / "dkim.pem")
        try:
            async with running_sink() as sink:
                await _measure(server, effort, found, _Place(sink, Path(folder), key))
        except DidNotRun as reason:
            for label in (OURS, NODEMAILER, SOURCE):
                found.missing.setdefault(label, str(reason))
    return found


class _Place(NamedTuple):
    sink: Sink
    folder: Path
    key: rsa.RSAPrivateKey

    @property
    def key_file(self) -> Path:
        return self.folder / "dkim.pem"


async def _measure(server: Server, effort: Effort, found: Found, place: _Place) -> None:
    _say("costs, part by part")
    found.costs = await costs.costs(server, place.sink, effort.costs)
    runs: list[Run] = []

    async def enter(label: str, contestant: Contestant, workers: int = 1) -> None:
        runs.append(await _enter(server, effort, found, Run(label, contestant, workers, FEWEST)))

    await _guarded(found, OURS, enter(OURS, _ours(place, None)))
    await _guarded(found, OURS_TWICE, enter(OURS_TWICE, _ours(place, None), 2))
    if house.can_sign():
        await _guarded(found, OURS_SIGNED, enter(OURS_SIGNED, _ours(place, place.key_file)))
    else:
        found.missing[OURS_SIGNED] = "this version does not sign"
    for label, key in ((NODEMAILER, None), (NODEMAILER_SIGNED, place.key_file)):
        await _guarded(found, label, _enter_fastest(server, effort, found, place, label, key, runs))
    source_messages = FEWEST * 4
    for n in range(effort.rounds):
        for run in runs:
            _say(f"round {n + 1}/{effort.rounds}: {run.label}, {run.messages:,} messages")
            await _guarded(found, run.label, _turn(server, found, run))
        _say(f"round {n + 1}/{effort.rounds}: {SOURCE}, {RSA}")
        await _guarded(found, SOURCE, _source_turn(found, place.sink, source_messages))
        found.paces[RSA].append(_sign(place.key, effort.work_s / 3))
        if found.paces.get(SOURCE):
            source_messages = round(found.paces[SOURCE][-1].jobs_per_s * effort.work_s)


async def _guarded(found: Found, label: str, step: Awaitable[None]) -> None:
    try:
        await step
    except DidNotRun as reason:
        found.missing[label] = str(reason)
        found.paces.pop(label, None)


async def _enter(server: Server, effort: Effort, found: Found, run: Run) -> Run:
    """The same, with as many messages as it sends in a turn."""
    _say(f"{run.label}: pace")
    found.settings[run.label] = await run.contestant.describe()
    pace, _ = await _work(server, run)
    messages = round(min(max(pace.jobs_per_s * effort.work_s, FEWEST), MOST))
    return run._replace(messages=messages)


async def _enter_fastest(
    server: Server, effort: Effort, found: Found, place: _Place, label: str, key: Path | None, runs: list[Run]
) -> None:
    entered = []
    for concurrency in PEER_CONCURRENCY:
        run = Run(label, _nodemailer(place, key, concurrency), 1, FEWEST)
        entered.append((await _enter(server, effort, found, run), found.settings[label]))
    fastest, found.settings[label] = max(entered, key=lambda one: one[0].messages)
    runs.append(fastest)


async def _turn(server: Server, found: Found, run: Run) -> None:
    pace, redis_us = await _work(server, run)
    found.paces[run.label].append(pace)
    found.redis_us[run.label].append(redis_us)


async def _work(server: Server, run: Run) -> tuple[Pace, float]:
    """Fill the queue and let it be emptied. Returns the pace, and the CPU time of Redis per message, µs."""
    warm = round(run.messages * WARM)
    ours = run.contestant.environment.get(FOLDER)
    await server.empty()
    if ours:
        shutil.rmtree(Path(ours) / "state", ignore_errors=True)
    await run.contestant.enqueue(server.url, warm=warm, jobs=run.messages, payload_bytes=0)
    before_s = await server.cpu_s()
    pace = await run.contestant.work(server.url, warm=warm, jobs=run.messages, workers=run.workers)
    redis_us = (await server.cpu_s() - before_s) * 1e6 / (warm + run.messages)
    if ours:
        await _require_accepted(Path(ours), warm + run.messages)
    return pace, redis_us


async def _require_accepted(folder: Path, messages: int) -> None:
    """Whoever counts what was not sent is quick: the ledger must say that all was accepted."""
    async with open_parts(OurSettings.load(folder / "postroad.toml")) as parts:
        counts = summary(parts.engine, house.CAMPAIGN).counts
    accepted = counts[TouchState.ACCEPTED]
    if accepted != messages:
        raise DidNotRun(f"the ledger has {accepted} of {messages} as accepted: {dict(counts)}")


def _ours(place: _Place, key_file: Path | None) -> Contestant:
    folder = place.folder / ("signed" if key_file else "plain")
    folder.mkdir(exist_ok=True)
    house.build(folder, house.Wish(port=place.sink.port, key_file=key_file))
    return Contestant(OURS, (sys.executable, "-m", "benchmarks.ours_delivery"), {FOLDER: str(folder)})


def _nodemailer(place: _Place, key_file: Path | None, concurrency: int) -> Contestant:
    modules, node = ENVS / "nodemailer/node_modules", shutil.which("node")
    if not modules.is_dir():
        raise DidNotRun("not installed; `make bench-peers` does it")
    if node is None:
        raise DidNotRun("node is not on the PATH")
    environment = {
        "NODE_PATH": str(modules),
        "SMTP_PORT": str(place.sink.port),
        "CONCURRENCY": str(concurrency),
        "MAIL": str(house.MAIL),
    }
    if key_file is not None:
        domain = house.SENDER.partition("@")[2]
        environment |= {"DKIM_KEY": str(key_file), "DKIM_DOMAIN": domain, "DKIM_SELECTOR": house.SELECTOR}
    return Contestant(NODEMAILER, (node, str(ROOT / "benchmarks/peers/nodemailer/peer.cjs")), environment)


async def _source_turn(found: Found, sink: Sink, messages: int) -> None:
    found.paces[SOURCE].append(await source_pace(sink, messages=messages, size_bytes=MESSAGE_BYTES))


def _write_key(path: Path) -> rsa.RSAPrivateKey:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return key


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
