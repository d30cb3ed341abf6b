"""postroad demo trial: the example of a journey, by a faster clock."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import typer

from postroad.cli.output import Styled, print_failure, print_json, print_line, print_note, print_table
from postroad.clock import SystemClock
from postroad.printable import PrintableFormatter, counted
from postroad.rehearsal.trial import TrialEnd, play_trial
from postroad.settings import Settings


def show_trial(settings: Settings, *, as_json: bool) -> None:
    """Play the example, and show where everyone is at the end. Raises typer.Exit if the numbers do not add up."""
    start = SystemClock().now()

    def say(at: datetime, words: str) -> None:
        if not as_json:
            print_note(Styled(f"day {(at - start).days:>2}", "dim"), f"  {words}")

    with tempfile.TemporaryDirectory(prefix="demo-trial-") as made:
        handler = logging.FileHandler(Path(made) / "demo.log", encoding="utf-8")
        handler.setFormatter(PrintableFormatter(logging.BASIC_FORMAT))
        logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
        result = asyncio.run(play_trial(settings, Path(made), start, say))
    if as_json:
        print_json(asdict(result))
    else:
        _print_result(result)
    if not result.complete:
        if not as_json:
            print_failure(1, "the parts do not sum to the whole: this should not be")
        raise typer.Exit(1)


def _print_result(result: TrialEnd) -> None:
    days = (result.ended_at - result.launched_at).days
    print_table(
        f"{result.campaign} after {counted(days, 'day')}: where people are, and why",
        ["person", "entered", "emails", "state", "at step", "why", "goal"],
        [
            [
                one.person,
                f"day {(one.entered_at - result.launched_at).days}",
                ", ".join(one.emails),
                one.state,
                one.step,
                one.why,
                "reached" if one.goal else "",
            ]
            for one in result.people
        ],
    )
    exited = ", ".join(f"{n} {reason}" for reason, n in result.exited.items())
    print_line(
        f"enrolled {result.enrolled} = active {result.active} + completed {result.completed} "
        f"+ exited {sum(result.exited.values())}{f' ({exited})' if exited else ''}; {result.goal} reached the goal"
    )
    print_line(
        f"{counted(result.captured, 'message')} at the sandbox, {counted(result.accepted, 'message')} accepted in the "
        f"ledger; {days} days in {result.seconds:.0f} s"
    )
