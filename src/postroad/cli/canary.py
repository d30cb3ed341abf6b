"""postroad dns canary: what a receiver makes of a sender's mail."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from msgspec import to_builtins

from postroad.canary.probe import CanaryReport, send_canary
from postroad.cli.names import named_sender
from postroad.cli.output import JsonOption, print_json, print_line
from postroad.cli.parts import with_parts
from postroad.dns.finding import RecordVerdict, worst
from postroad.dns.show import to_fix
from postroad.errors import UnavailableError
from postroad.parts import Parts


def canary(
    sender: Annotated[str | None, typer.Argument(help="Name of a sender; unset: one after the other.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a signed message by each sender's route to the mailbox of [canary], and compare what its receiver says.

    Exits 1 when something fails, 6 when nothing fails and the receiver could not tell just then, else 0.
    """

    async def work(parts: Parts) -> list[CanaryReport]:
        if sender is not None:
            named_sender(parts.settings, sender)
        return [
            await send_canary(
                parts.settings,
                name,
                engine=parts.engine,
                resolver=await parts.resolver(),
                signer=parts.signer,
                clock=parts.clock,
                environ=os.environ,
            )
            for name in ([sender] if sender is not None else parts.settings.senders)
        ]

    reports = with_parts(work)
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
