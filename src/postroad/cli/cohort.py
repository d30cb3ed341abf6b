"""postroad cohort: shows the outcomes of each list's mail, and paused cohorts, and resumes them."""

from __future__ import annotations

import asyncio
import getpass
from typing import Annotated, Any

import typer

from postroad.app.context import AppContext
from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, print_table
from postroad.cli.row_limit import MAX_NUMBER
from postroad.delivery.job import SEND_QUEUE
from postroad.errors import UsageError
from postroad.senders.cohort_breaker import CohortStatus, cohort_statuses, lift
from postroad.store.campaign import StepKind, find_campaign, steps_of
from postroad.store.cohort import CohortPause, NamedPause, pauses
from postroad.store.engine import read

app = typer.Typer(
    help="Cohorts: the messages of one step, from one list source, to one mailbox provider, which are paused together.",
    no_args_is_help=True,
)


@app.command("list")
def list_(
    lifted: Annotated[bool, typer.Option("--lifted", help="Also pauses that were lifted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List cohorts that are paused, and why."""

    async def work(context: AppContext) -> list[NamedPause]:
        def found() -> list[NamedPause]:
            with read(context.engine) as connection:
                return pauses(connection, lifted=lifted)

        return await asyncio.to_thread(found)

    found = with_context(work)
    if as_json:
        print_json([_plain(one) for one in found])
        return
    if not found:
        print_line("No cohort is paused.")
        return
    columns = ["id", "campaign", "step", "source", "provider", "since", "because of", "lifted"]
    rows = [
        [
            one.pause.id,
            one.campaign,
            one.step,
            one.pause.source,
            one.pause.provider,
            one.pause.at,
            one.pause.reason,
            f"by {one.pause.lifted_by}: {one.pause.lifted_why}" if one.pause.lifted_at else None,
        ]
        for one in found
    ]
    print_table("paused cohorts", columns, rows)
    print_line("`postroad cohort resume ID --reason …` resumes one.")


@app.command("status")
def status(campaign: Annotated[str, typer.Argument(help="Name of a campaign.")], as_json: JsonOption = False) -> None:
    """Show what came of each cohort of a campaign, and what is made of it: healthy, open or guilty."""

    async def work(context: AppContext) -> list[tuple[str, CohortStatus]]:
        def found() -> list[tuple[str, CohortStatus]]:
            with read(context.engine) as connection:
                steps = steps_of(connection, find_campaign(connection, campaign).id or 0)
                return [
                    (step.name, cohort)
                    for step in steps
                    if step.kind is StepKind.EMAIL and step.id is not None
                    for cohort in cohort_statuses(connection, step.id, context.settings)
                ]

        return await asyncio.to_thread(found)

    found = [_row(step, cohort) for step, cohort in with_context(work)]
    if as_json:
        print_json(found)
        return
    columns = ["step", "source", "provider", "tried", "hard_bounces", "complaints", "finding", "paused"]
    print_table(f"cohorts of {campaign}", columns, ([row[column] for column in columns] for row in found))


@app.command("resume")
def resume(
    pause: Annotated[
        int, typer.Argument(metavar="ID", help="Id of the pause: `postroad cohort list`.", min=1, max=MAX_NUMBER)
    ],
    reason: Annotated[str, typer.Option(help="The reason: what was found and fixed.")],
    by: Annotated[str, typer.Option(help="Who decides; unset: who you are on this machine.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Resume a paused cohort. The operator and the reason are recorded; only later mail counts as evidence."""
    if not reason.strip():
        raise UsageError("--reason is empty", remedy="State the reason: --reason 'the list was cleaned'.")

    async def work(context: AppContext) -> CohortPause:
        return await lift(
            context.engine,
            await context.queue(SEND_QUEUE),
            pause,
            settings=context.settings,
            by=by.strip() or getpass.getuser(),
            why=reason.strip(),
            now=context.clock.now(),
        )

    lifted = with_context(work)
    if as_json:
        print_json(lifted.model_dump(mode="json"))
    else:
        print_line(f"{lifted.source or 'no source'} at {lifted.provider} resumed")


def _plain(one: NamedPause) -> dict[str, Any]:
    return {"campaign": one.campaign, "step": one.step, **one.pause.model_dump(mode="json")}


def _row(step: str, cohort: CohortStatus) -> dict[str, Any]:
    by_evidence = {str(evidence): str(finding) for evidence, finding in cohort.findings.items()}
    return {
        "step": step,
        "source": cohort.cohort.source,
        "provider": cohort.cohort.provider,
        "tried": cohort.tried,
        "hard_bounces": cohort.hard,
        "complaints": cohort.complained,
        "finding": ", ".join(f"{evidence.replace('_', ' ')}: {found}" for evidence, found in by_evidence.items()),
        "findings": by_evidence,
        "paused": cohort.paused,
    }
