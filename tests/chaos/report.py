"""What a run did and what came of it, for people and for scripts. No input, no output."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from postroad.queue import EventKind, JobState
from tests.chaos.queue_run import Result, Setting
from tests.chaos.server import Fsync

SHOWN = 5
"""Ids that are shown of those that something is wrong with."""

PROMISE = {
    Fsync.ALWAYS: (
        "Whatever the server answered is on disk: none of these deaths, nor a power failure, may lose a job or repeat "
        "an act."
    ),
    Fsync.EVERYSEC: (
        "What the server has written outlives its process, not its machine: a power failure takes up to the last "
        "second, and while the disk is busy a kill as well. Jobs handed in within it are gone, acts within it may be "
        "repeated by the queue alone; under Postroad the ledger refuses to (docs/explanation/guarantees.md)."
    ),
}


def command(setting: Setting) -> str:
    """The command that does the same again."""
    words = [f"uv run python -m tests.chaos --minutes {setting.seconds / 60:g} --seed {setting.seed}"]
    words += [f"--server {setting.kind}", f"--fsync {setting.fsync}"]
    words += ["--cut-power"] if setting.cut_power else []
    return " ".join(words)


def as_json(setting: Setting, result: Result) -> str:
    """One line."""
    accounts = result.accounts
    facts: dict[str, Any] = {
        "ok": result.ok,
        "command": command(setting),
        "server": result.server,
        "fsync": setting.fsync,
        "seconds": round(result.seconds, 1),
        "blows": dict(sorted(result.blows.items())),
        "kills": kills(result.blows),
        "jobs": accounts.jobs,
        "acts": accounts.acts,
        "states": dict(accounts.states),
        "done": accounts.states[EventKind.DONE],
        "uncertain": accounts.states[JobState.UNCERTAIN],
        "lost": len(accounts.lost),
        "sent_twice": len(accounts.twice),
        "contradicted": len(accounts.contradicted),
        "exposed": len(accounts.exposed),
        "stale": result.counters.get("stale", 0),
        "marks_refused": result.refused,
        "audit": result.audit,
        "broken_workers": result.broken,
    }
    return json.dumps(facts)


def kills(blows: Mapping[str, int]) -> int:
    """How many processes were killed."""
    return sum(times for what, times in blows.items() if "killed" in what and "connections" not in what)


def as_table(setting: Setting, result: Result) -> str:
    """A page to read."""
    accounts = result.accounts
    page = StringIO()
    out = Console(file=page, width=120, highlight=False)
    out.print(
        f"[bold]The queue under fire[/]: {result.server}, appendfsync {setting.fsync}, {setting.seconds:g} s of blows, "
        f"{result.workers_started} workers in all"
    )
    out.print(_table("what was done to it", "times", sorted(result.blows.items())))
    live = {state: accounts.states[state] for state in (JobState.QUEUED, JobState.SCHEDULED, JobState.IN_FLIGHT)}
    ended = [(str(state), times) for state, times in sorted(accounts.states.items()) if state not in live]
    out.print(
        _table(
            "what became of the jobs",
            "jobs",
            [
                ("accepted", accounts.jobs),
                *((f"  {what}", times) for what, times in ended),
                ("  left over by healthy workers", sum(live.values())),
                ("  lost", len(accounts.lost)),
                ("  sent twice", len(accounts.twice)),
                ("  contradicted", len(accounts.contradicted)),
                *([("  exposed by everysec", len(accounts.exposed))] if setting.fsync is Fsync.EVERYSEC else []),
            ],
        )
    )
    out.print(
        _table(
            "what held",
            "times",
            [
                ("acts on the sink", accounts.acts),
                ("ids handed in again and refused", result.counters.get("known", 0)),
                ("calls of clients that got no answer and were repeated", result.unanswered),
                ("leases that ran out unmarked and were given back", result.counters.get("reaped", 0)),
                ("leases that ran out marked and were held", result.counters.get("uncertain", 0)),
                ("marks refused to zombies", result.refused),
                ("verdicts that came too late", result.counters.get("stale", 0)),
            ],
        )
    )
    for what, ids in (("lost", accounts.lost), ("sent twice", accounts.twice), ("contradicted", accounts.contradicted)):
        if ids:
            out.print(f"[bold red]{what}[/]: {', '.join(ids[:SHOWN])}{' …' if len(ids) > SHOWN else ''}")
    for sentence in result.audit:
        out.print(f"[bold red]audit[/]: {sentence}")
    if result.broken:
        out.print(f"[bold red]workers broke[/] with {result.broken}")
    out.print(f"lost {len(accounts.lost)}, sent twice {len(accounts.twice)}, audit {len(result.audit)}", style="bold")
    out.print(PROMISE[setting.fsync])
    out.print(f"again: {command(setting)}", soft_wrap=True)
    return page.getvalue().rstrip()


def _table(what: str, unit: str, rows: Iterable[tuple[str, int]]) -> Table:
    table = Table(show_edge=False, header_style="dim", box=None, pad_edge=False)
    table.add_column(what, min_width=56)
    table.add_column(unit, justify="right", min_width=8)
    for name, number in rows:
        table.add_row(name, f"{number:,}")
    table.add_section()
    return table
