"""postroad campaign: from a file in version control to mail that leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from postroad.cli.campaign_approval import approvals, approve, refuse
from postroad.cli.campaign_delays import delays
from postroad.cli.campaign_forecast import forecast as forecast_command
from postroad.cli.campaign_preview import preview
from postroad.cli.campaign_proof import proof
from postroad.cli.campaign_recall import recall
from postroad.cli.campaign_status import status
from postroad.cli.campaign_variants import variants
from postroad.cli.campaign_widen import widen
from postroad.cli.context import with_context
from postroad.cli.output import (
    JsonOption,
    Styled,
    confirm,
    print_json,
    print_line,
    print_note,
    print_table,
    print_warning,
    progress_bars,
)
from postroad.errors import PostroadError, UsageError

if TYPE_CHECKING:
    from postroad.app.context import AppContext
    from postroad.campaign.audience_file import AudienceFile
    from postroad.campaign.launch_forecast import Forecast
    from postroad.campaign.preflight import PreflightReport
    from postroad.store.campaign import Campaign

# A command imports what it runs: `campaign status` needs neither templates nor SMTP, and starts in a third of the time.

app = typer.Typer(help="Campaigns: apply their files, launch, watch, pause, cancel.", no_args_is_help=True)
FORM_WITHIN_S = 10.0
"""Longest time that an apply waits for Prefect."""

NameArgument = Annotated[str, typer.Argument(help="Name of the campaign.")]


@app.command("apply")
def apply_(
    files: Annotated[list[Path], typer.Argument(help="One or more campaign.yaml.")], as_json: JsonOption = False
) -> None:
    """Make a campaign from its file, or bring it up to date. Of a launched one, only what hurts no recipient."""
    from postroad.campaign.apply import apply, warn_of_new_audience, warn_of_unknown_fields
    from postroad.campaign.definition import read_campaign
    from postroad.settings import Settings

    settings = Settings.load()
    read = [read_campaign(file, settings) for file in files]  # All are read before any is applied.

    async def work(context: AppContext) -> list[Campaign]:
        now = context.clock.now()
        for file in read:
            warning = await asyncio.to_thread(warn_of_new_audience, context.engine, file)
            if warning is not None:
                print_warning(warning)
            for unknown in await asyncio.to_thread(warn_of_unknown_fields, context.engine, context.settings, file):
                print_warning(unknown)
        applied = [await asyncio.to_thread(apply, context.engine, context.settings, file, now) for file in read]
        await _offer_in_prefect(context)
        return applied

    campaigns = with_context(work)
    if as_json:
        print_json([{"campaign": campaign.name, "state": campaign.state} for campaign in campaigns])
    else:
        for campaign in campaigns:
            print_line(f"campaign {campaign.name} is applied ({campaign.state})")


async def _offer_in_prefect(context: AppContext) -> None:
    """List the campaigns in the form of Prefect's UI. An apply never fails because there is no Prefect."""
    from postroad.local.campaign_form import offer_campaigns
    from postroad.local.prefect_api import open_prefect

    try:
        async with asyncio.timeout(FORM_WITHIN_S), open_prefect(context.settings) as prefect:
            await offer_campaigns(context.engine, prefect)
    except (PostroadError, TimeoutError) as error:
        why = error.message if isinstance(error, PostroadError) else f"no answer within {FORM_WITHIN_S:g} s"
        print_note(
            f"The list of campaigns in Prefect's form is not updated: {why}. "
            "The flow `maintenance` updates it; until then the name can be typed there, under Other."
        )


@app.command("launch")
def launch(
    name: NameArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, and say who would get what when. Nothing is changed.")
    ] = False,
    links: Annotated[
        bool, typer.Option("--links", help="With --dry-run: also follow the links of its messages over HTTP.")
    ] = False,
    by: Annotated[
        str | None, typer.Option(help="Who asks, for an approval that the launch may need; unset: your user and host.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Launch a campaign: preflight, freeze its audience, enqueue due messages.

    It starts the Prefect deployment `campaign`, as the button Run in the Prefect UI does. Launched again, it enqueues
    messages that are due and not enqueued yet. No message is sent twice. A campaign that was paused because its run was
    cancelled or suspended is resumed.

    A launch that needs an approval waits for `postroad campaign approve`, or for a person who resumes its run in
    Prefect.

    Nothing is started where preflight fails (exit code 5), or the campaign does not exist, has ended, was paused by
    `postroad campaign pause`, or is being launched by another run (exit code 7). `postroad campaign status` says why a
    launch failed later.
    """
    from postroad.cli.unknown import default_actor
    from postroad.local.campaign_launch import start_launch

    if links and not dry_run:
        raise UsageError("--links is for a dry run", remedy="Add --dry-run, or set preflight.links for every launch.")
    if dry_run:
        _dry_run(name, links=links, as_json=as_json)
        return

    asked_by = by if by is not None else default_actor(None)
    with progress_bars(quiet=as_json) as bars:
        started = with_context(lambda context: start_launch(context, name, asked_by=asked_by, progress=bars))
    if as_json:
        fields = {"campaign": name, "flow_run": started.run_id, "url": started.url}
        print_json({**fields, "needs_approval": started.needs_approval})
    elif started.needs_approval:
        print_line(f"the launch of campaign {name} needs an approval: {started.url}")
        print_line("Its run asks for it after the preflight. `postroad campaign approvals` lists what waits.")
        print_line(f"`postroad campaign approve {name} --by WHO` gives it, `postroad campaign refuse` refuses it.")
    else:
        print_line(f"campaign {name} is being launched: {started.url}")
        print_line(f"`postroad campaign status {name}` shows its progress.")


async def _preflight(
    context: AppContext, name: str, *, quiet: bool, links: bool | None = None
) -> tuple[PreflightReport, AudienceFile | None]:
    from postroad.app.preflight import preflight_with_file

    with progress_bars(quiet=quiet) as bars:
        return await preflight_with_file(context, name, links=links, progress=bars)


def _dry_run(name: str, *, links: bool, as_json: bool) -> None:
    from postroad.campaign.launch_forecast import forecast
    from postroad.operations.campaign_runs import require_launchable

    async def work(context: AppContext) -> tuple[PreflightReport, AudienceFile | None, Forecast]:
        await asyncio.to_thread(require_launchable, context.engine, name)
        report, file = await _preflight(context, name, quiet=as_json, links=links or None)
        now = context.clock.now()
        seen = await asyncio.to_thread(forecast, context.engine, name, now, report.file, context.calendar)
        return report, file, seen

    report, file, seen = with_context(work)
    if as_json:
        to_import = str(file.path) if file is not None and file.to_import else None
        print_json(
            {"campaign": name, "ok": report.ok, "findings": report.findings, "forecast": seen, "to_import": to_import}
        )
    else:
        for finding in report.findings:
            print_line(Styled(finding.level, "bold"), f" {finding.what}")
            print_line(f"     {finding.remedy}")
        zone = ZoneInfo(seen.time_zone)
        print_table(
            f"dry run of {name}: {seen.recipients:,} would get it, {seen.suppressed:,} are suppressed",
            ["time zone", "first email due", f"in {seen.time_zone}", "recipients"],
            (
                [due.time_zone, due.due_at, f"{due.due_at.astimezone(zone):%Y-%m-%d %H:%M}", due.recipients]
                for due in seen.due
            ),
        )
        if file is not None and file.to_import:
            print_line(f"The launch imports {file.path} first; its people are counted here.")
        elif file is not None:
            print_line(file.why_not)
    report.require_ok()


app.command("preview")(preview)
app.command("proof")(proof)
app.command("approve")(approve)
app.command("refuse")(refuse)
app.command("approvals")(approvals)
app.command("status")(status)
app.command("forecast")(forecast_command)
app.command("delays")(delays)
app.command("recall")(recall)
app.command("variants")(variants)
app.command("widen")(widen)


@app.command("pause")
def pause(name: NameArgument, as_json: JsonOption = False) -> None:
    """Let nothing more of a campaign leave. What is on the wire finishes."""
    from postroad.app.campaign_acts import pause as pause_campaign

    with_context(lambda context: pause_campaign(context, name, by="`postroad campaign pause`"))
    if as_json:
        print_json({"campaign": name, "state": "paused"})
    else:
        print_line(f"campaign {name} is paused; `postroad campaign resume {name}` resumes it")


@app.command("resume")
def resume(name: NameArgument, as_json: JsonOption = False) -> None:
    """Resume a paused campaign. No message is sent twice."""
    from postroad.app.campaign_acts import resume as resume_campaign

    with_context(lambda context: resume_campaign(context, name, by="`postroad campaign resume`"))
    if as_json:
        print_json({"campaign": name, "state": "running"})
    else:
        print_line(f"campaign {name} resumed")


@app.command("close")
def close(name: NameArgument, as_json: JsonOption = False) -> None:
    """Let no more recipients enter a campaign. Those who did go through it, and then it finishes.

    For campaigns with `entry: joined`, an event or a date, which do not finish by themselves.
    """
    from postroad.app.campaign_acts import close as close_campaign

    with_context(lambda context: close_campaign(context, name))
    if as_json:
        print_json({"campaign": name, "entry": "closed"})
    else:
        print_line(f"campaign {name} is closed: no more recipients enter it")


@app.command("cancel")
def cancel(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End a campaign for good. What is on the wire finishes; everything that waits is cancelled."""
    from postroad.app.campaign_acts import cancel as cancel_campaign

    if not yes:
        confirm(f"End campaign {name} for good?")
    cancelled = with_context(lambda context: cancel_campaign(context, name))
    if as_json:
        print_json({"campaign": name, "state": "cancelled", "cancelled": cancelled})
    else:
        print_line(f"campaign {name} is cancelled; {cancelled:,} queued messages will not leave")
