"""Finds the Prefect runs that launch campaigns now, so that no second one is started."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import httpx
import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.errors import PostroadError, StateError
from postroad.local.flow_run import FlowRun, RunState
from postroad.local.prefect_api import PrefectApi, open_prefect
from postroad.store.campaign_run import ActiveRun, active_runs
from postroad.store.engine import read

FLOW: Final = "campaign"
LIVE: Final = ("SCHEDULED", "PENDING", "RUNNING")
"""Kinds of state of a run that works or is about to. One that waits for an approval or is cancelled does neither."""
BEGINS_WITHIN: Final = timedelta(minutes=1)
"""A schedule's run counts from so long before its time on: Prefect makes the runs of days in advance."""
ANSWERS_WITHIN_S: Final = 2.0
"""A page does not wait longer for Prefect."""
NO_ANSWER: Final = (PostroadError, TimeoutError, httpx.HTTPError, ValueError, LookupError, TypeError)
"""Errors of a Prefect that does not answer, and of another program that answers at its address."""


@dataclass(frozen=True, kw_only=True)
class LiveLaunch:
    """A Prefect run that launches a campaign. ``url``: its page in Prefect. ``state`` None: Prefect does not answer."""

    run_id: UUID
    url: str
    state: RunState | None = None


async def find_live_launches(prefect: PrefectApi, now: datetime) -> dict[str, LiveLaunch]:
    """Return the runs that launch campaigns now, by the name of the campaign: the oldest one of each.

    Args:
        prefect: The client of Prefect.
        now: The time.

    Returns:
        The runs.

    Raises:
        UnavailableError: Prefect does not answer.
    """
    of_runs = {"state": {"type": {"any_": LIVE}}, "expected_start_time": {"before_": (now + BEGINS_WITHIN).isoformat()}}
    wanted = {"flows": {"name": {"any_": [FLOW]}}, "flow_runs": of_runs, "sort": "EXPECTED_START_TIME_DESC"}
    return {
        name: LiveLaunch(run_id=UUID(run.run_id), url=prefect.url_of(UUID(run.run_id)), state=run.state)
        for run in await prefect.find_runs(wanted)
        if (name := _campaign_of(run)) is not None
    }


def _campaign_of(run: FlowRun) -> str | None:
    params = run.parameters.get("params")
    name = params.get("campaign") if isinstance(params, Mapping) else None
    return name if isinstance(name, str) else None


async def shown_launches(context: AppContext) -> dict[str, LiveLaunch]:
    """Return the runs that launch campaigns now, for a page.

    While Prefect does not answer, they are the runs that the ledger records.

    Args:
        context: The open parts.

    Returns:
        The runs, by the name of the campaign.

    Raises:
        UnavailableError: The database is unavailable.
    """
    async with open_prefect(context.settings) as prefect:
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                return await find_live_launches(prefect, context.clock.now())
        except NO_ANSWER:
            recorded = await asyncio.to_thread(_recorded, context.engine)
        return {
            run.campaign: LiveLaunch(run_id=UUID(run.run_id), url=prefect.url_of(UUID(run.run_id)))
            for run in reversed(recorded)
        }


def _recorded(engine: sa.Engine) -> Sequence[ActiveRun]:
    with read(engine) as connection:
        return active_runs(connection)


def require_no_launch(name: str, launches: Mapping[str, LiveLaunch]) -> None:
    """Check that no run launches a campaign now.

    Args:
        name: Name of the campaign.
        launches: The runs that launch campaigns now.

    Raises:
        StateError: A run launches it.
    """
    found = launches.get(name)
    if found is not None:
        state = f" ({found.state.name})" if found.state is not None else ""
        raise StateError(
            f"campaign {name} is being launched by another run{state}",
            where=found.url,
            remedy="Follow this run. If its process has died, cancel the run in Prefect and launch the campaign again.",
        )


async def has_run(prefect: PrefectApi, idempotency_key: str) -> bool:
    """Return whether a run was started with this key. Raises UnavailableError."""
    found = await prefect.find_runs({"flow_runs": {"idempotency_key": {"any_": [idempotency_key]}}})
    return bool(found)
