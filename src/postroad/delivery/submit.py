"""Hand touches to the queue: read a batch, enqueue it, then mark it as queued in a short transaction.

No transaction is open while the queue's server is asked. A submission that dies in between leaves touches that are
planned and have a job. The next submission enqueues them again, which the queue ignores for ids that it knows. It knows
an id until the recorder has put its outcome into the ledger, and from then on the ledger admits no job of that touch.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from postroad.delivery.job import SendJob, encode_job, job_id, lane_of, queue_of
from postroad.delivery.provider_lookup import Providers
from postroad.dns.providers import OTHER, provider_table
from postroad.gates.name import Receiver
from postroad.mail.address import domain_of
from postroad.mail.template import RESERVED, compile_template
from postroad.queue import Job, Lane, Queue
from postroad.shaping.config import Shaping
from postroad.store.bulk import json_rows
from postroad.store.campaign import Campaign, CampaignState, StepKind, find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.ledger import due_touches, mark_queued
from postroad.store.mail_domain import domains_to_look_up
from postroad.store.types import epoch_ms

Warming = Mapping[str, Sequence[str]]
"""By From address: the identities that a sender warms up. Who is not in it sends without such caps."""
NO_WARMUP: Warming = {}

BATCH = 1_000

LANES_AT_ONCE = 4

OWN_LANE_THRESHOLD = 20
"""Touches of a batch that go to one site of no known provider, from which on they do not wait in the tail lane."""


@dataclass(frozen=True, kw_only=True)
class SubmitResult:
    """How far a submission is. ``cursor``: the last touch handed over; the next slice starts behind it."""

    cursor: int
    submitted: int
    done: bool


@dataclass(frozen=True, kw_only=True)
class SenderRoute:
    """Who sends, and by which way. ``warmup``: its identities that warm up."""

    address: str
    route: str
    warmup: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SubmitPlan:
    """What is the same for all touches of a campaign."""

    campaign: Campaign
    senders: dict[int, SenderRoute]  # by id; 0 is the campaign's own
    fields: dict[int, frozenset[str]]  # merge fields that each step's templates name
    shaping: Shaping | None  # None: as shipped, which gives no site or domain a pace of its own


def queue_name(engine: sa.Engine, campaign: str) -> str:
    """Return the name of the queue that a campaign's touches go by. Raises StateError when there is none."""
    with read(engine) as connection:
        return queue_of(find_campaign(connection, campaign))


def load_submit_plan(
    engine: sa.Engine, name: str, warming: Warming = NO_WARMUP, shaping: Shaping | None = None
) -> SubmitPlan:
    """Read what all touches of a campaign share. Raises StateError when there is none of that name."""
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        assert campaign.id is not None  # noqa: S101  (read from its table)
        others = campaign.overflow["senders"] if campaign.overflow else []
        rows = connection.execute(
            sa.text("SELECT id, address, route FROM sender WHERE id IN :ids").bindparams(
                sa.bindparam("ids", [campaign.sender_id, *others], expanding=True)
            )
        )
        senders = {
            0 if id_ == campaign.sender_id else id_: SenderRoute(
                address=address, route=route, warmup=tuple(warming.get(address, ()))
            )
            for id_, address, route in rows
        }
        fields: dict[int, frozenset[str]] = {}
        for step in steps_of(connection, campaign.id):
            if step.kind is StepKind.EMAIL and step.id is not None:
                sources = (step.settings.get(part) for part in ("subject", "text", "html", "mjml"))
                named = [compile_template(source, name=step.name).fields for source in sources if source]
                fields[step.id] = frozenset().union(*named) - RESERVED
    return SubmitPlan(
        campaign=campaign,
        senders=senders,
        fields=fields,
        shaping=shaping,
    )


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
    providers: Providers | None = None,
    warming: Warming = NO_WARMUP,
    shaping: Shaping | None = None,
) -> SubmitResult:
    """Hand over the touches of a running campaign that are due within the horizon, up to a limit, behind a cursor.

    ``providers`` looks up domains that nothing is known of, before any transaction; None: nothing is looked up.
    ``shaping`` says which sites and domains have a pace, and so lanes, of their own; None: as shipped, none.
    Raises UnavailableError, and then what was not handed over is still planned.
    """
    plan = await asyncio.to_thread(load_submit_plan, engine, campaign, warming, shaping)
    until = now + timedelta(milliseconds=horizon_ms)
    submitted = 0
    if providers is not None and plan.campaign.state is CampaignState.RUNNING:
        await providers.learn(await asyncio.to_thread(_unknown_domains, engine, plan, cursor, until, now, limit))
    while submitted < limit and plan.campaign.state is CampaignState.RUNNING:
        taken = await _submit_batch(engine, queue, plan, until, expire_ms, cursor, min(BATCH, limit - submitted))
        if not taken:
            return SubmitResult(cursor=cursor, submitted=submitted, done=True)
        cursor = taken[-1].id
        submitted += len(taken)
    return SubmitResult(cursor=cursor, submitted=submitted, done=plan.campaign.state is not CampaignState.RUNNING)


async def _submit_batch(
    engine: sa.Engine, queue: Queue, plan: SubmitPlan, until: datetime, expire_ms: int, cursor: int, limit: int
) -> Sequence[sa.Row[Any]]:
    due = await asyncio.to_thread(_due, engine, plan, until, cursor, limit)
    if due:
        await enqueue_touches(queue, plan, due, expire_ms)
        # Only now are they queued: whatever fails before leaves them planned.
        await asyncio.to_thread(_mark_queued, engine, [row.id for row in due])
    return due


def _unknown_domains(
    engine: sa.Engine, plan: SubmitPlan, cursor: int, until: datetime, now: datetime, limit: int
) -> list[str]:
    assert plan.campaign.id is not None  # noqa: S101  (read from its table)
    with read(engine) as connection:
        return domains_to_look_up(connection, plan.campaign.id, after_id=cursor, until=until, now=now, limit=limit)


def _due(engine: sa.Engine, plan: SubmitPlan, until: datetime, cursor: int, limit: int) -> Sequence[sa.Row[Any]]:
    assert plan.campaign.id is not None  # noqa: S101  (read from its table)
    with read(engine) as connection:
        due = due_touches(connection, plan.campaign.id, after_id=cursor, until=until, limit=limit)
        return touch_rows(connection, due)


def _mark_queued(engine: sa.Engine, touch_ids: Sequence[int]) -> None:
    with write(engine) as connection:
        mark_queued(connection, touch_ids)


def touch_rows(connection: sa.Connection, touch_ids: Collection[int]) -> Sequence[sa.Row[Any]]:
    """What a job needs to know of each touch; the first due first."""
    if not touch_ids:
        return []
    item, parameters = json_rows(connection, "batch", {"id": sa.BigInteger()}, [{"id": i} for i in touch_ids])
    statement = sa.text(
        "SELECT touch.id, touch.step_id, touch.due_at, touch.next_at, recipient.address, recipient.attributes, "
        "recipient.time_zone, mail_domain.provider, mail_domain.site, COALESCE(touch.sender_id, 0) AS sender_id "
        f"FROM {item} JOIN touch ON touch.id = batch.id JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        "ORDER BY touch.due_at, touch.id"
    ).columns(
        sa.column("id", sa.Integer()),
        sa.column("step_id", sa.Integer()),
        sa.column("due_at"),  # without their type: see epoch_ms
        sa.column("next_at"),
        sa.column("address", sa.Text()),
        sa.column("attributes", sa.JSON()),
        sa.column("time_zone", sa.Text()),
        sa.column("provider", sa.Text()),
        sa.column("site", sa.Text()),
        sa.column("sender_id", sa.Integer()),
    )
    return connection.execute(statement, parameters).all()


async def enqueue_touches(
    queue: Queue, plan: SubmitPlan, rows: Sequence[sa.Row[Any]], expire_ms: int, *, since_ms: int = 0
) -> None:
    """Enqueue touches, some lanes at once. Raises UnavailableError, and then some may have been enqueued.

    A touch expires ``expire_ms`` after it is due, or after ``since_ms`` where that is later.
    """
    busy = _busy_sites(rows)
    receivers: dict[str, tuple[Receiver, str]] = {}
    lanes: dict[tuple[int, Receiver], list[Job]] = defaultdict(list)
    for touch_id, step_id, due_at, next_at, address, attributes, zone, known, known_site, sender_id in rows:
        domain = domain_of(address)
        found = receivers.get(domain)
        if found is None:
            found = receivers[domain] = _receiver(domain, known, known_site, plan.shaping, busy)
        receiver, site = found
        message = SendJob(
            touch_id=touch_id,
            step_id=step_id,
            address=address,
            fields={name: str(attributes[name]) for name in plan.fields[step_id] if name in attributes},
            zone=zone or "",
            provider=receiver.provider,
            site=site,
            tables=receiver.tables,
            sender_id=sender_id,
        )
        due_ms = epoch_ms(due_at)
        lanes[sender_id, receiver].append(
            Job(
                id=job_id(touch_id),
                payload=encode_job(message),
                due_ms=due_ms if next_at is None else max(due_ms, epoch_ms(next_at)),
                expires_ms=max(due_ms, since_ms) + expire_ms,
            )
        )
    # One is packed while the server is at another; each under way is a connection.
    free = asyncio.Semaphore(LANES_AT_ONCE)

    async def put(whose: tuple[int, Receiver], jobs: list[Job]) -> None:
        async with free:
            await queue.enqueue(_lane(plan, *whose), jobs)

    for outcome in await asyncio.gather(*(put(*lane) for lane in lanes.items()), return_exceptions=True):
        if outcome is not None:
            raise outcome


def _lane(plan: SubmitPlan, sender_id: int, receiver: Receiver) -> Lane:
    carrier = plan.senders[sender_id]
    return lane_of(
        sender=carrier.address,
        receiver=receiver,
        campaign=plan.campaign.name,
        route=carrier.route,
        job_class=plan.campaign.job_class,
        warmup=carrier.warmup,
    )


def _receiver(
    domain: str, known: str | None, known_site: str | None, shaping: Shaping | None, busy: set[str]
) -> tuple[Receiver, str]:
    """Return whose limits hold for a domain, and its site: as everybody knows, else as DNS said last, else its own."""
    well_known = provider_table().of_domain(domain)
    if well_known is not None:
        provider = site = well_known
    elif known is not None and known_site is not None:
        provider, site = known, known_site
    else:
        provider, site = OTHER, domain
    receiver = shaping.receiver_of(provider, site, domain) if shaping is not None else Receiver(provider)
    of_its_own = provider == OTHER and receiver == Receiver(OTHER) and site in busy
    return Receiver(site) if of_its_own else receiver, site


def _busy_sites(rows: Sequence[sa.Row[Any]]) -> set[str]:
    """Sites of no known provider that get a lane of their own: rare ones share one for each sender."""
    sites = Counter(row.site for row in rows if row.provider == OTHER)
    return {site for site, count in sites.items() if count >= OWN_LANE_THRESHOLD}
