"""postroad doctor: checks every part, and says how to correct what is wrong."""

from __future__ import annotations

import asyncio
from typing import assert_never

import typer

from postroad.cli.output import JsonOption, Styled, print_json, print_line
from postroad.doctor import Check, examine
from postroad.queue import Health


def doctor(as_json: JsonOption = False) -> None:
    """Check every part: settings, keys, Redis, database, recorder, sources, routes, web, Prefect.

    Each check has its own deadline: a part that does not answer keeps no other from being checked. Exits 1 when one
    fails.
    """
    checks = asyncio.run(examine())
    if as_json:
        print_json(checks)
    else:
        for check in checks:
            _print(check)
    if any(check.health is Health.FAIL for check in checks):
        raise typer.Exit(1)


def _print(check: Check) -> None:
    match check.health:
        case Health.OK:
            colour = "green"
        case Health.WARN:
            colour = "yellow"
        case Health.FAIL:
            colour = "red"
        case other:
            assert_never(other)
    print_line(Styled(f"{check.health:<4}", colour), f" {check.part:<18} {check.seen}")
    for line in check.remedy.split("\n") if check.remedy else ():
        print_line(f"     {'':<18} {line}")
