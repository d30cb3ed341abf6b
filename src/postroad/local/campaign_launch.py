"""Launches a campaign by its Prefect deployment, as the button Run of Prefect's UI does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from postroad.app.approval import launch_needs_approval
from postroad.app.context import AppContext
from postroad.app.preflight import Progress, preflight_with_file
from postroad.local.live_launches import find_live_launches, has_run, require_no_launch, shown_launches
from postroad.local.prefect_api import PrefectApi, open_prefect
from postroad.operations.campaign_runs import require_launchable


@dataclass(frozen=True, kw_only=True)
class StartedLaunch:
    """The Prefect run of a launch, and the address of its page. ``needs_approval``: it waits for a person."""

    run_id: str
    url: str
    needs_approval: bool = False


async def start_launch(
    context: AppContext,
    name: str,
    *,
    asked_by: str,
    progress: Progress | None = None,
    idempotency_key: str | None = None,
) -> StartedLaunch:
    """Start the Prefect run that launches a campaign.

    Args:
        context: The open parts.
        name: Name of the campaign.
        asked_by: The person or the program that asks, for an approval that the launch may need.
        progress: Called during preflight.
        idempotency_key: A second call with the same key returns the run of the first.

    Returns:
        The run.

    Raises:
        StateError: There is no such campaign, it has ended, a person paused it, another run launches it now, or the
            deployment is not installed.
        PreflightError: Preflight fails.
        UnavailableError: The database or Prefect's server is unavailable.
    """
    await require_startable(context, name, is_repetition=idempotency_key is not None)
    report, _ = await preflight_with_file(context, name, progress=progress)
    report.require_ok()
    waits = await launch_needs_approval(context, name, coming=report.file)
    async with context.launching, open_prefect(context.settings) as prefect:
        await _require_no_other_run(context, prefect, name, idempotency_key)
        parameters = {"params": {"campaign": name, "asked_by": asked_by}}
        run_id = await prefect.run_deployment("campaign/campaign", parameters, idempotency_key=idempotency_key)
        return StartedLaunch(run_id=str(run_id), url=prefect.url_of(run_id), needs_approval=waits)


async def require_startable(context: AppContext, name: str, *, is_repetition: bool = False) -> None:
    """Check that a person may launch a campaign now.

    Args:
        context: The open parts.
        name: Name of the campaign.
        is_repetition: The run that launches the campaign now may be that of the same request.

    Raises:
        StateError: There is no such campaign, it has ended, a person paused it, or a run launches it now.
        UnavailableError: The database is unavailable.
    """
    await asyncio.to_thread(require_launchable, context.engine, name)
    if not is_repetition:
        require_no_launch(name, await shown_launches(context))


async def _require_no_other_run(context: AppContext, prefect: PrefectApi, name: str, key: str | None) -> None:
    if key is None or not await has_run(prefect, key):
        require_no_launch(name, await find_live_launches(prefect, context.clock.now()))
