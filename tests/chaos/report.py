"""The report of a run, as text for people and as one line for scripts. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table

from postroad.queue import EventKind, JobState
from tests.chaos import delivery_run, delivery_scene, queue_run
from tests.chaos.server import Fsync

SHOWN = 5
"""Maximum number of faulty ids that are shown."""

LIVE = (JobState.QUEUED, JobState.SCHEDULED, JobState.IN_FLIGHT)

PROMISE = {
    Fsync.ALWAYS: (
        "Whatever the server answered is on disk: neither these deaths nor a power failure may lose a job or repeat an "
        "act."
    ),
    Fsync.EVERYSEC: (
        "What the server has written outlives its process, not its machine: a power failure takes up to the last "
        "second of writes, and so does a kill while the disk is busy. Jobs handed in within it are gone, and acts "
        "within it may be repeated by the queue on its own (exposed). Under Postroad the ledger prevents that: see "
        "--delivery and docs/explanation/guarantees.md."
    ),
}


def kills(faults: Mapping[str, int]) -> int:
    """Number of killed processes."""
    return sum(times for what, times in faults.items() if " killed" in what and not what.startswith("connections"))


def queue_command(setting: queue_run.Setting) -> str:
    """Return the command that repeats the run."""
    words = f"uv run python -m tests.chaos --minutes {setting.seconds / 60:g} --seed {setting.seed}"
    return f"{words} --server {setting.kind} --fsync {setting.fsync}{' --cut-power' if setting.cut_power else ''}"


def queue_line(setting: queue_run.Setting, result: queue_run.Result) -> str:
    accounts = result.accounts
    facts = {
        "ok": result.ok,
        "command": queue_command(setting),
        "server": result.server,
        "fsync": setting.fsync,
        "seconds": round(result.seconds, 1),
        "faults": dict(sorted(result.faults.items())),
        "kills": kills(result.faults),
        "jobs": accounts.jobs,
        "acts": accounts.acts,
        "done": accounts.states[EventKind.DONE],
        "states": dict(accounts.states),
        "uncertain": accounts.states[JobState.UNCERTAIN],
        "lost": len(accounts.lost),
        "sent_twice": len(accounts.twice),
        "contradicted": len(accounts.contradicted),
        "exposed": dict(accounts.exposed),
        "stale": result.counters.get("stale", 0),
        "marks_refused": result.refused,
        "audit": result.audit,
        "broken_workers": result.broken,
    }
    return json.dumps(facts)


def queue_page(setting: queue_run.Setting, result: queue_run.Result) -> str:
    accounts = result.accounts
    ended = [(f"  {state}", times) for state, times in sorted(accounts.states.items()) if state not in LIVE]
    exposed = [(f"  exposed by everysec: {wrong}", number) for wrong, number in sorted(accounts.exposed.items())]
    page = _Page()
    page.say(
        f"The queue under fire: {result.server}, appendfsync {setting.fsync}, {setting.seconds:g} s of faults, "
        f"{queue_run.WORKERS} workers of {queue_run.CONCURRENCY}, {result.workers_started} started in all"
    )
    page.table("what was done to it", "times", sorted(result.faults.items()))
    page.table(
        "what became of the jobs",
        "jobs",
        [
            ("accepted", accounts.jobs),
            *ended,
            ("  left over by healthy workers", sum(accounts.states[state] for state in LIVE)),
            ("  lost", len(accounts.lost)),
            ("  sent twice", len(accounts.twice)),
            ("  contradicted", len(accounts.contradicted)),
            *exposed,
        ],
    )
    page.table(
        "what it took",
        "times",
        [
            ("acts on the sink", accounts.acts),
            ("ids handed in again and refused", result.counters.get("known", 0)),
            ("calls of clients that got no answer and were repeated", result.unanswered),
            ("leases that ran out unmarked, given back", result.counters.get("reaped", 0)),
            ("jobs held as uncertain, some of them settled later", result.counters.get("uncertain", 0)),
            ("marks refused to those who came too late", result.refused),
            ("stale verdicts", result.counters.get("stale", 0)),
        ],
    )
    page.wrong("lost", accounts.lost)
    page.wrong("sent twice", accounts.twice)
    page.wrong("contradicted", accounts.contradicted)
    page.wrong("audit", result.audit)
    page.wrong("workers broke, with exit codes", [str(code) for code in result.broken])
    page.say(
        f"kills {kills(result.faults)}, jobs {accounts.jobs:,}, lost {len(accounts.lost)}, sent twice "
        f"{len(accounts.twice)}, uncertain {accounts.states[JobState.UNCERTAIN]}, audit {len(result.audit)}: "
        f"{_judgement(result.ok)}"
    )
    page.say(PROMISE[setting.fsync])
    page.say(f"again: {queue_command(setting)}")
    return page.text()


def delivery_command(setting: delivery_run.Setting) -> str:
    """Return the command that repeats the run."""
    words = f"uv run python -m tests.chaos --delivery --minutes {setting.seconds / 60:g} --seed {setting.seed}"
    return f"{words} --server {setting.kind}"


def delivery_line(setting: delivery_run.Setting, result: delivery_run.Result) -> str:
    facts = {
        "ok": result.ok,
        "command": delivery_command(setting),
        "server": result.server,
        "seconds": round(result.seconds, 1),
        "faults": dict(sorted(result.faults.items())),
        "kills": kills(result.faults),
        "audience": result.audience,
        "states": {str(state): n for state, n in sorted(result.counts.items())},
        "messages": result.taken,
        "lost": result.missed,
        "sent_twice": len(result.twice),
        "contradicted": len(result.contradicted),
        "unknown": result.unknown,
        "unknown_allowed": result.allowed_unknown,
        "why_unknown": result.why_unknown,
        "audit": result.audit,
    }
    return json.dumps(facts)


def delivery_page(setting: delivery_run.Setting, result: delivery_run.Result) -> str:
    page = _Page()
    page.say(
        f"A campaign under fire: {result.server}, appendfsync everysec, SQLite, {setting.seconds:g} s of faults, "
        f"{delivery_scene.WORKERS} workers of {delivery_run.CONCURRENCY}"
    )
    page.table("what was done to it", "times", sorted(result.faults.items()))
    page.table(
        "what became of the audience",
        "touches",
        [
            ("audience", result.audience),
            *((f"  {state}", n) for state, n in sorted(result.counts.items()) if state.ended),
            ("  without an end", result.missed),
        ],
    )
    page.table("why it is unknown", "touches", result.why_unknown.items())
    page.table(
        "what the provider has",
        "messages",
        [
            ("messages", result.taken),
            ("recipients with two", len(result.twice)),
            ("recipients of whom the ledger says the opposite", len(result.contradicted)),
        ],
    )
    page.wrong("sent twice", result.twice)
    page.wrong("contradicted", result.contradicted)
    page.wrong("audit", result.audit)
    page.say(
        f"kills {kills(result.faults)}, audience {result.audience:,}, lost {result.missed}, sent twice "
        f"{len(result.twice)}, unknown {result.unknown} (what was on the wire or not yet recorded at a fault: at most "
        f"{result.allowed_unknown}), audit {len(result.audit)}: {_judgement(result.ok)}"
    )
    page.say(f"again: {delivery_command(setting)}")
    return page.text()


def _judgement(ok: bool) -> str:
    return "the word was kept" if ok else "NOT as promised"


class _Page:
    def __init__(self) -> None:
        self._file = StringIO()
        self._console = Console(file=self._file, width=110, highlight=False, markup=False)

    def say(self, words: str) -> None:
        self._console.print(words, soft_wrap=words.startswith("again"))
        self._console.print()

    def table(self, what: str, unit: str, rows: Iterable[tuple[str, int]]) -> None:
        table = Table(box=None, pad_edge=False)
        table.add_column(what, min_width=56)
        table.add_column(unit, justify="right", min_width=8)
        for name, number in rows:
            table.add_row(name, f"{number:,}")
        self._console.print(table)
        self._console.print()

    def wrong(self, what: str, items: Sequence[str]) -> None:
        if items:
            self.say(f"{what}: {', '.join(items[:SHOWN])}{' …' if len(items) > SHOWN else ''}")

    def text(self) -> str:
        return self._file.getvalue().rstrip()
