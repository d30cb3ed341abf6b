"""Hand touches to the queue: in batches, each in a transaction that ends only when the queue has them.

Should it end otherwise, the touches are still planned and are handed over again, which the queue ignores for those it
knows. It knows an id until the recorder has put its outcome into the ledger.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from postroad.delivery.job import ProviderOf, SendMessage, encode_job, job_id, lane_of, provider_of
from postroad.mail.template import RESERVED, compile_template
from postroad.queue import Job, Queue
from postroad.store.bulk import json_rows
from postroad.store.campaign import Campaign, CampaignState, StepKind, find_campaign, steps_of
from postroad.store.engine import read, transient, write_connection
from postroad.store.ledger import take_due
from postroad.store.types import UtcDateTime

BATCH = 1_000


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """How far a submission is. ``cursor``: the last touch handed over; the next slice starts behind it."""

    cursor: int
    submitted: int
    done: bool


@dataclass(frozen=True, kw_only=True)
class SubmitPlan:
    """What is the same for all touches of a campaign."""

    campaign: Campaign
    sender: str
    route: str
    fields: dict[int, frozenset[str]]  # merge fields that each step's templates name
    provider_of: ProviderOf


def plan_of(engine: sa.Engine, name: str, provider_of: ProviderOf = provider_of) -> SubmitPlan:
    """Read what all touches of a campaign share. Raises StateError when there is none of that name."""
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        assert campaign.id is not None  # noqa: S101  (read from its table)
        sender, route = connection.execute(
            sa.text("SELECT address, route FROM sender WHERE id = :id"), {"id": campaign.sender_id}
        ).one()
        fields: dict[int, frozenset[str]] = {}
        for step in steps_of(connection, campaign.id):
            if step.kind is StepKind.EMAIL and step.id is not None:
                sources = (step.settings.get(part) for part in ("subject", "text", "html", "mjml"))
                named = [compile_template(source, name=step.name).fields for source in sources if source]
                fields[step.id] = frozenset().union(*named) - RESERVED
    return SubmitPlan(campaign=campaign, sender=sender, route=route, fields=fields, provider_of=provider_of)


async def submit_due(
    engine: sa.Engine,
    queue: Queue,
    campaign: str,
    *,
    now: datetime,
    horizon_ms: int,
    expire_ms: int,
    cursor: int,
    limit: int,
    provider_of: ProviderOf = provider_of,
) -> Submitted:
    """Hand over the touches of a running campaign that are due within the horizon, up to a limit, behind a cursor.

    Raises UnavailableError, and then what was not handed over is still planned.
    """
    plan = await asyncio.to_thread(plan_of, engine, campaign, provider_of)
    until = now + timedelta(milliseconds=horizon_ms)
    submitted = 0
    while submitted < limit and plan.campaign.state is CampaignState.RUNNING:
        taken = await _submit_batch(engine, queue, plan, until, expire_ms, cursor, min(BATCH, limit - submitted))
        if not taken:
            return Submitted(cursor=cursor, submitted=submitted, done=True)
        cursor = taken[-1]
        submitted += len(taken)
    return Submitted(cursor=cursor, submitted=submitted, done=plan.campaign.state is not CampaignState.RUNNING)


async def _submit_batch(
    engine: sa.Engine, queue: Queue, plan: SubmitPlan, until: datetime, expire_ms: int, cursor: int, limit: int
) -> list[int]:
    connection = write_connection(engine)
    try:
        taken, rows = await asyncio.to_thread(_take, connection, plan, until, cursor, limit)
        await enqueue_touches(queue, plan, rows, expire_ms)
        # Only now are they queued: whatever fails before leaves them planned.
        await asyncio.to_thread(_commit, connection)
        return taken
    finally:
        await asyncio.to_thread(connection.close)


def _take(
    connection: sa.Connection, plan: SubmitPlan, until: datetime, cursor: int, limit: int
) -> tuple[list[int], Sequence[sa.Row[Any]]]:
    with transient():
        connection.begin()
        assert plan.campaign.id is not None  # noqa: S101  (read from its table)
        taken = take_due(connection, plan.campaign.id, after_id=cursor, until=until, limit=limit)
        return taken, touch_rows(connection, taken)


def _commit(connection: sa.Connection) -> None:
    with transient():
        connection.commit()


def touch_rows(connection: sa.Connection, touch_ids: Sequence[int]) -> Sequence[sa.Row[Any]]:
    """What a job needs to know of each touch, in order of ids."""
    if not touch_ids:
        return []
    item, parameters = json_rows(connection, "batch", {"id": sa.BigInteger()}, [{"id": i} for i in touch_ids])
    statement = sa.text(
        "SELECT touch.id, touch.step_id, touch.due_at, touch.next_at, recipient.address, recipient.attributes, "
        "recipient.time_zone "
        f"FROM {item} JOIN touch ON touch.id = batch.id JOIN recipient ON recipient.id = touch.recipient_id "
        "ORDER BY touch.id"
    ).columns(
        sa.column("id", sa.Integer()),
        sa.column("step_id", sa.Integer()),
        sa.column("due_at", UtcDateTime()),
        sa.column("next_at", UtcDateTime()),
        sa.column("address", sa.Text()),
        sa.column("attributes", sa.JSON()),
        sa.column("time_zone", sa.Text()),
    )
    return connection.execute(statement, parameters).all()


async def enqueue_touches(queue: Queue, plan: SubmitPlan, rows: Sequence[sa.Row[Any]], expire_ms: int) -> None:
    """Enqueue touches, lane by lane."""
    lanes: dict[str, list[Job]] = defaultdict(list)
    for touch_id, step_id, due_at, next_at, address, attributes, zone in rows:
        fields = {name: str(attributes[name]) for name in plan.fields[step_id] if name in attributes}
        message = SendMessage(touch_id=touch_id, step_id=step_id, address=address, fields=fields, zone=zone or "")
        payload = encode_job(message)
        due_ms = int(due_at.timestamp() * 1000)
        not_before_ms = int(next_at.timestamp() * 1000) if next_at is not None else due_ms
        lanes[plan.provider_of(address)].append(
            Job(
                id=job_id(touch_id),
                payload=payload,
                due_ms=max(due_ms, not_before_ms),
                expires_ms=due_ms + expire_ms,
            )
        )
    for provider, jobs in lanes.items():
        lane = lane_of(
            sender=plan.sender,
            provider=provider,
            campaign=plan.campaign.name,
            route=plan.route,
            job_class=plan.campaign.job_class,
        )
        await queue.enqueue(lane, jobs)
