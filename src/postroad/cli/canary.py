"""postroad dns canary: what a receiver makes of a sender's mail."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from msgspec import to_builtins

from postroad.app.context import AppContext
from postroad.canary.probe import CanaryReport, send_canary
from postroad.cli.context import with_context
from postroad.cli.names import named_sender
from postroad.cli.output import JsonOption, print_json, print_line
from postroad.dns.finding import RecordVerdict, worst
from postroad.dns.show import to_fix
from postroad.errors import UnavailableError


def canary(
    sender: Annotated[str | None, typer.Argument(help="Name of a sender; unset: one after the other.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a signed message by each sender's route to the mailbox of [canary], and compare what its receiver says.

    Exits 1 when something fails, 6 when nothing fails and the receiver could not tell just then, else 0.
    """

    async def work(context: AppContext) -> list[CanaryReport]:
        if sender is not None:
            named_sender(context.settings, sender)
        return [
            await send_canary(
                context.settings,
                name,
                engine=context.engine,
                resolver=await context.resolver(),
                signer=context.signer,
                clock=context.clock,
                environ=os.environ,
            )
            for name in ([sender] if sender is not None else context.settings.senders)
        ]

    reports = with_context(work)
    if as_json:
        print_json([{"sender": r.sender, "verdict": r.verdict, "findings": to_builtins(r.findings)} for r in reports])
    for report in [] if as_json else reports:
        for finding in report.findings:
            print_line(f"{finding.verdict}: {finding.subject}: {finding.seen}")
        for finding in to_fix(report.findings):
            print_line(f"  {finding.why} {finding.remedy}".rstrip())
    match worst(report.verdict for report in reports):
        case RecordVerdict.FAIL:
            raise typer.Exit(1)
        case RecordVerdict.UNKNOWN:
            raise typer.Exit(UnavailableError.exit_code)
