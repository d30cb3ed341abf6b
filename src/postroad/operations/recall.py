"""Recalls a campaign or one of its steps: stops what has not left, and tells who got it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlmodel import col

from postroad.delivery.job import job_id
from postroad.errors import StateError, unknown_name
from postroad.operations import campaigns
from postroad.queue import Queue
from postroad.store.bulk import id_rows
from postroad.store.campaign import Campaign, CampaignState, Step, find_campaign, steps_of
from postroad.store.ending import cancel_waiting_touches
from postroad.store.engine import read, write
from postroad.store.ledger import ON_THE_WIRE, TouchState
from postroad.store.touch_count import counts_by_step
from postroad.store.touch_page import touch_pages
from postroad.store.types import UtcDateTime
from postroad.store.variant_split import variant_names

REACHED = (TouchState.ACCEPTED, *ON_THE_WIRE)
"""States of touches that were delivered, or may have been."""


@dataclass(frozen=True, kw_only=True)
class RecallResult:
    """What a recall stopped, and what had left before. ``cancelled``, ``counts``: touches of the recalled steps."""

    campaign: str
    step: str | None
    state: CampaignState
    counts: dict[TouchState, int]


class ReachedRecipient(NamedTuple):
    """A recipient who got an email, or may have got it. ``at``: when that was settled; None: it is on the wire.

    ``variant``: None if the step has none.
    """

    address: str
    step: str
    variant: str | None
    state: TouchState
    at: datetime | None


async def recall(engine: sa.Engine, queue: Queue, name: str, step: str | None, now: datetime) -> RecallResult:
    """Stop every message of a campaign, or of one of its steps, that is not on the wire. Idempotent.

    A recalled step is not sent to later recipients either: their sequence ends with it.

    Args:
        engine: The ledger's database.
        queue: The queue of this campaign.
        name: Name of the campaign.
        step: Name of the step. None: the campaign is cancelled, unless it has finished.
        now: The time.

    Returns:
        The touches of what was recalled, by state.

    Raises:
        StateError: There is no such campaign or step, or the campaign was never launched.
    """
    campaign, found = await asyncio.to_thread(_find, engine, name, step)
    if found is not None:
        queued = await asyncio.to_thread(recall_step, engine, campaign, found, now)
        await queue.cancel([job_id(touch_id) for touch_id in queued], "recalled")
    elif campaign.state is CampaignState.FINISHED:
        await asyncio.to_thread(recall_steps, engine, campaign, now)
    else:
        await campaigns.cancel(engine, queue, name, now)
    return await asyncio.to_thread(_result, engine, name, found)


def _find(engine: sa.Engine, name: str, step: str | None) -> tuple[Campaign, Step | None]:
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        emails = {one.name: one for one in steps_of(connection, campaign.id or 0) if one.kind == "email"}
    if step is not None and step not in emails:
        raise unknown_name("email step", step, list(emails), listed_by=f"postroad campaign status {name}")
    if campaign.state is CampaignState.DRAFT and campaign.freezing_at is None:
        raise StateError(
            f"campaign {name} was not launched, so none of its messages has left",
            remedy=f"`postroad campaign cancel {name}` ends it for good.",
        )
    return campaign, emails[step] if step is not None else None


def recall_step(engine: sa.Engine, campaign: Campaign, step: Step, now: datetime) -> list[int]:
    """Mark a step as recalled, and cancel what waits, in the ledger only. Idempotent.

    Args:
        engine: The ledger's database.
        campaign: The campaign.
        step: Its step.
        now: The time.

    Returns:
        The touches for which the queue may have jobs.
    """
    assert campaign.id is not None  # noqa: S101  (read from its table)
    with write(engine) as connection:
        # Waits for a transaction that plans touches of the step. A later one plans them as cancelled.
        find_campaign(connection, campaign.name, for_update=True)
        recalled = sa.update(Step).where(col(Step.id) == step.id, col(Step.recalled_at).is_(None))
        connection.execute(recalled.values(recalled_at=now))
    return cancel_waiting_touches(engine, campaign.id, now, step_id=step.id)


def recall_steps(engine: sa.Engine, campaign: Campaign, now: datetime) -> None:
    """Mark all steps of a finished campaign as recalled, so that no dead letter of it is sent again."""
    with write(engine) as connection:
        find_campaign(connection, campaign.name, for_update=True)
        recalled = sa.update(Step).where(col(Step.campaign_id) == campaign.id, col(Step.recalled_at).is_(None))
        connection.execute(recalled.values(recalled_at=now))


def _result(engine: sa.Engine, name: str, step: Step | None) -> RecallResult:
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        by_step = counts_by_step(connection, campaign.id or 0)
    of_steps = [by_step.get(step.id or 0, {})] if step is not None else list(by_step.values())
    counts = {state: sum(counts.get(state, 0) for counts in of_steps) for state in TouchState}
    return RecallResult(campaign=name, step=step.name if step else None, state=campaign.state, counts=counts)


def reached_recipients(engine: sa.Engine, name: str, step: str | None) -> Iterator[ReachedRecipient]:
    """Yield the recipients whom a campaign or one of its steps reached, or may have reached, a page at a time."""
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        names = {one.id: one.name for one in steps_of(connection, campaign.id or 0)}
    step_id = next((id_ for id_, known in names.items() if known == step), None)
    for page in touch_pages(engine, campaign.id or 0, step_id=step_id):
        reached = [touch.id for touch in page if touch.state in REACHED]
        if reached:
            with read(engine) as connection:
                yield from _addresses(connection, reached, names)


def has_variants(engine: sa.Engine, name: str) -> bool:
    """Return whether a step of a campaign has variants. Raise StateError if no campaign has that name."""
    with read(engine) as connection:
        steps = steps_of(connection, find_campaign(connection, name).id or 0)
    return any(variant_names(step.settings) for step in steps)


def _addresses(connection: sa.Connection, touch_ids: list[int], names: dict[int | None, str]) -> list[ReachedRecipient]:
    item, parameters = id_rows(connection, touch_ids)
    statement = sa.text(
        "SELECT recipient.address, touch.step_id, touch.variant, touch.state, touch.settled_at "
        f"FROM {item} CROSS JOIN touch "
        "CROSS JOIN recipient WHERE touch.id = batch.id AND recipient.id = touch.recipient_id ORDER BY touch.id"
    ).columns(
        sa.column("address", sa.Text()),
        sa.column("step_id", sa.Integer()),
        sa.column("variant", sa.Text()),
        sa.column("state", sa.Text()),
        sa.column("settled_at", UtcDateTime()),
    )
    return [
        ReachedRecipient(row.address, names[row.step_id], row.variant, TouchState(row.state), row.settled_at)
        for row in connection.execute(statement, parameters)
    ]
