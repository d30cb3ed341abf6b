"""postroad rehearse: how a campaign would go, before anybody gets it."""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from postroad.cli.options import at, parse_duration_option_ms, parse_personas, parse_timestamp_ms
from postroad.cli.output import (
    JsonOption,
    Styled,
    print_failure,
    print_json,
    print_line,
    print_table,
    print_warning,
    progress_bars,
)
from postroad.cli.row_limit import MAX_NUMBER
from postroad.cli.signals import stop_on_signals
from postroad.clock import SystemClock
from postroad.errors import UsageError
from postroad.printable import PrintableFormatter, counted
from postroad.rehearsal.environment import RehearsalOptions
from postroad.rehearsal.report import RehearsalReport
from postroad.rehearsal.run import rehearse as run_rehearsal
from postroad.settings import Settings
from postroad.store.ledger import TouchState

MOST_SPEED = 100_000.0


def rehearse(
    campaign: Annotated[Path, typer.Argument(help="A campaign.yaml.", exists=True, dir_okay=False)],
    persona: Annotated[
        str, typer.Option(help="Providers, and each one's share of the recipients' domains: gmail=0.6,outlook=0.3.")
    ] = "gmail=0.5,outlook=0.2,yahoo=0.1",
    speed: Annotated[str, typer.Option(help="How fast the clock may run: 100x.")] = "1000x",
    recipients: Annotated[
        int | None,
        typer.Option(help="Rows of the audience's file, repeated as need be; unset: all.", min=1, max=MAX_NUMBER),
    ] = None,
    require_authentication: Annotated[
        bool, typer.Option("--require-authentication", help="Let providers refuse what is unsigned or unaligned.")
    ] = False,
    start: Annotated[
        str | None, typer.Option(help="When it is launched: 2027-01-31T09:00Z, or 12h; unset: now.")
    ] = None,
    within: Annotated[str, typer.Option(help="Give up after this much of the campaign's time.")] = "60d",
    warmup_day: Annotated[
        int, typer.Option(help="Day of their plans on which warming senders are at the launch.", min=1, max=3650)
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of the chance that providers leave things to.")] = 0,
    directory: Annotated[
        Path | None, typer.Option(help="Empty folder that is kept; unset: a temporary one that is removed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rehearse a whole campaign on parts of its own, by a faster clock. No message leaves this machine.

    The queue, the database, the worker and SMTP are real; mailbox providers are played by the sandbox, which is the
    only way out. Says when the campaign would finish, what providers deferred and refused, which limit held it for how
    long, and which list would have been paused. Your database, your queue and your relays are not touched.

    Ends with 1 when the account does not add up or the campaign did not finish.
    """
    settings = Settings.load()
    now_ms = SystemClock().now_ms()
    order = RehearsalOptions(
        campaign=campaign,
        shares=parse_personas(persona),
        speed=parse_speed(speed),
        recipients=recipients,
        within_ms=parse_duration_option_ms(within),
        warmup_day=warmup_day,
        require_authentication=require_authentication,
        seed=seed,
    )
    launch_ms = parse_timestamp_ms(start, now_ms) if start else now_ms
    with _folder(directory) as folder:
        handler = logging.FileHandler(folder / "rehearsal.log", encoding="utf-8")
        handler.setFormatter(PrintableFormatter(logging.BASIC_FORMAT))
        logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
        report = asyncio.run(_rehearse(order, settings, folder, launch_ms, quiet=as_json))
    if as_json:
        print_json(report)
    else:
        print_report(report)
    if not (report.complete and report.finished):
        raise typer.Exit(1)


async def _rehearse(
    order: RehearsalOptions, settings: Settings, folder: Path, launch_ms: int, *, quiet: bool
) -> RehearsalReport:
    with progress_bars(quiet=quiet) as progress:
        start = at(launch_ms)
        assert start is not None  # noqa: S101  (of a known time)
        return await run_rehearsal(order, settings, folder, start, progress, stop_on_signals())


def parse_speed(text: str) -> float:
    """Read ``100x``, or ``100``. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)x?", text.strip().lower())
    speed = float(found[1]) if found else 0.0
    if not 0.1 <= speed <= MOST_SPEED:
        raise UsageError(f"{text!r} is no speed: write how often as fast, from 0.1x to {MOST_SPEED:,.0f}x, as in 100x")
    return speed


@contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    if named is None:
        with tempfile.TemporaryDirectory(prefix="rehearsal-") as made:
            yield Path(made)
        return
    named.mkdir(parents=True, exist_ok=True)
    if any(named.iterdir()):
        raise UsageError("a rehearsal needs a folder of its own, and this one has something in it", where=str(named))
    yield named.resolve()


def print_report(report: RehearsalReport) -> None:
    """For a person."""
    took = f"{timedelta(seconds=round(report.seconds))} after its launch" if report.seconds is not None else ""
    when = f"finished {report.finished_at:%Y-%m-%d %H:%M} UTC, {took}" if report.finished_at else report.ended
    used = [state for state in TouchState if any(state in step.counts for step in report.steps)]
    print_line(Styled(report.campaign, "bold"), f": {when}")
    print_table(
        f"audience {report.audience:,}",
        ["step", "touches", *used],
        ([step.name, step.touches, *(step.counts.get(state, 0) for state in used)] for step in report.steps),
    )
    print_table(
        "providers",
        ["played by", "recipients", "touches", "accepted", "deferred", "due to accepted", "the slowest"],
        (
            [
                each.persona,
                each.recipients,
                each.touches,
                each.accepted,
                each.deferred,
                _span(each.median_seconds),
                _span(each.slowest_seconds),
            ]
            for each in report.personas
        ),
    )
    if report.said:
        print_table(
            "what was not accepted at once",
            ["played by", "became", "times", "recipients", "reply"],
            ([s.persona, s.outcome, s.times, s.recipients, s.reply or s.cause] for s in report.said),
        )
    holds = [[hold.gate, hold.why, _span(hold.seconds)] for hold in report.holds]
    if report.slots_full_seconds:
        holds.append(["worker", "every slot taken", _span(report.slots_full_seconds)])
    if holds:
        print_table("what held messages back", ["gate", "why", "for"], holds)
    if report.paused:
        print_table(
            "lists that were paused",
            ["step", "source", "provider", "at", "why", "waiting"],
            ([p.step, p.source or None, p.provider, p.at, p.reason, p.waiting] for p in report.paused),
        )
    if report.warmup:
        print_table(
            "caps of warming senders",
            ["identity", "provider", "day", "cap", "sent"],
            ([w.identity, w.provider, w.day, w.cap, w.sent] for w in report.warmup),
        )
    if report.overflow:
        print_table(
            "what other senders took over",
            ["sender", "touches", "why"],
            ([o.sender, o.touches, o.why] for o in report.overflow),
        )
    _print_run(report)


def _print_run(report: RehearsalReport) -> None:
    run = report.run
    print_line(
        f"{counted(report.captured, 'message')} at the sandbox, {report.duplicates} twice; "
        f"{run.real_seconds:g} s in all, "
        f"{run.speed_mean:,g} times as fast as it would be (asked for: {run.speed_asked:,g}, slowest: "
        f"{run.speed_slowest:,g}), late by at most {_span(run.lag_seconds)}"
    )
    if not run.kept_up:
        print_warning(
            f"this machine could not keep up: messages were up to {_span(run.lag_seconds)} "
            "late for no other reason. A lower --speed is more exact."
        )
    if report.ended == "held for good":
        print_warning("the rest waits for an operator: at a gate that is closed, or because its list was paused")
    if not report.complete:
        print_failure(1, "the parts do not sum to the whole: this should not be")


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
