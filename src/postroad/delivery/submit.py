"""Submits touches to the queue: reads a batch, enqueues it, then marks it as queued in a short transaction.

No transaction is open during a call to the queue's server. A submission that dies in between leaves touches that are
planned and have a job. The next submission enqueues them again, and the queue ignores ids that it has. It keeps an id
until the recorder has written its outcome to the ledger; from then on the ledger admits no job of that touch.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from postroad.campaign.holidays import COUNTRY_FIELD, SUBDIVISION_FIELD, place_of
from postroad.delivery.job import AttachedFile, SendJob, encode_job, job_id, lane_of, queue_of
from postroad.delivery.provider_lookup import Providers
from postroad.dns.providers import OTHER_PROVIDERS, provider_table
from postroad.gates.controller import GateController
from postroad.gates.name import Receiver, SenderRoute
from postroad.mail.address import domain_of
from postroad.mail.template import RESERVED, compile_template
from postroad.queue import Job, Lane, Queue
from postroad.shaping.config import Shaping
from postroad.store.bulk import json_rows
from postroad.store.campaign import Campaign, CampaignState, StepKind, find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.ledger import LEAVES_AT, due_touches
from postroad.store.mail_domain import domains_to_look_up
from postroad.store.touches.sending import mark_queued
from postroad.store.types import epoch_ms
from postroad.store.variant_split import CONTENT

Warming = Mapping[str, Sequence[str]]
"""By From address: the identities that a sender warms up. Other senders have no warmup caps."""

BATCH = 1_000
MAX_CONCURRENT_LANES = 4

OWN_LANE_THRESHOLD = 20
"""Touches of one batch to one site of no known provider, from which on the site gets a lane of its own."""


@dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """What the settings say of jobs.

    ``expire_ms``: a job expires so long after it is due. ``horizon_ms``: touches that are due so soon are submitted.
    ``shaping``: tells which sites and domains have lanes of their own; None: as shipped, none. ``providers``: looks up
    the mail hosts of unknown domains; None: they are not looked up. ``gates``: limits new gates before the first job
    gets there; None: the next run of the controller does.
    """

    expire_ms: int
    horizon_ms: int = 0
    warming: Warming = field(default_factory=dict)
    shaping: Shaping | None = None
    providers: Providers | None = None
    gates: GateController | None = None


@dataclass(frozen=True, kw_only=True)
class SubmitResult:
    """How far a submission came. ``cursor``: id of the last touch that was submitted; the next slice follows it."""

    cursor: int
    submitted: int
    done: bool


@dataclass(frozen=True, kw_only=True)
class SubmitPlan:
    """What all touches of a campaign share.

    ``senders``: by id; 0 is the campaign's own sender. ``fields``: merge fields that the templates of each step and of
    its variants name. ``versions``: the version of each step.
    """

    campaign: Campaign
    campaign_id: int
    senders: dict[int, SenderRoute]
    fields: dict[int, frozenset[str]]
    versions: dict[int, int]
    options: SubmitOptions


def queue_name(engine: sa.Engine, campaign: str) -> str:
    """Return the name of the queue that takes a campaign's touches.

    Raises:
        StateError: There is no such campaign.
    """
    with read(engine) as connection:
        return queue_of(find_campaign(connection, campaign))


def load_submit_plan(engine: sa.Engine, name: str, options: SubmitOptions) -> SubmitPlan:
    """Read what all touches of a campaign share.

    Returns:
        The plan for all its submissions.

    Raises:
        StateError: There is no such campaign.
    """
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        assert campaign.id is not None  # noqa: S101  (read from its table)
        others = campaign.overflow["senders"] if campaign.overflow else []
        ids: sa.BindParameter[int] = sa.bindparam("ids", [campaign.sender_id, *others], expanding=True)
        rows = connection.execute(sa.text("SELECT id, address, route FROM sender WHERE id IN :ids").bindparams(ids))
        senders = {0 if id_ == campaign.sender_id else id_: SenderRoute(address, route) for id_, address, route in rows}
        fields: dict[int, frozenset[str]] = {}
        versions: dict[int, int] = {}
        for step in steps_of(connection, campaign.id):
            if step.kind is StepKind.EMAIL and step.id is not None:
                contents = [step.settings, *step.settings.get("variants", ())]
                sources = (content.get(part) for content in contents for part in CONTENT)
                named = [compile_template(source, name=step.name).fields for source in sources if source]
                fields[step.id], versions[step.id] = frozenset().union(*named) - RESERVED, step.version
    return SubmitPlan(
        campaign=campaign, campaign_id=campaign.id, senders=senders, fields=fields, versions=versions, options=options
    )


async def submit_due(
    engine: sa.Engine, queue: Queue, campaign: str, options: SubmitOptions, *, now: datetime, cursor: int, limit: int
) -> SubmitResult:
    """Submit touches of a running campaign that are due within the horizon.

    Domains without a cached provider are looked up first, outside any transaction.

    Args:
        engine: The ledger's database.
        queue: The queue of the campaign.
        campaign: Its name.
        options: What the settings say of jobs.
        now: The time.
        cursor: Id of the last touch that was submitted; 0 begins.
        limit: Touches to submit, at most.

    Returns:
        How far it came.

    Raises:
        StateError: There is no such campaign.
        UnavailableError: The database or the queue is unavailable. What was not submitted is still planned.
    """
    plan = await asyncio.to_thread(load_submit_plan, engine, campaign, options)
    until = now + timedelta(milliseconds=options.horizon_ms)
    running = plan.campaign.state is CampaignState.RUNNING
    if options.providers is not None and running:
        domains = await asyncio.to_thread(_unknown_domains, engine, plan, cursor, until, now, limit)
        await options.providers.look_up(domains)
    submitted = 0
    while submitted < limit and running:
        batch = await _submit_batch(engine, queue, plan, until, cursor, min(BATCH, limit - submitted))
        if not batch:
            return SubmitResult(cursor=cursor, submitted=submitted, done=True)
        cursor = batch[-1].id
        submitted += len(batch)
    return SubmitResult(cursor=cursor, submitted=submitted, done=not running)


async def _submit_batch(
    engine: sa.Engine, queue: Queue, plan: SubmitPlan, until: datetime, cursor: int, limit: int
) -> Sequence[sa.Row[Any]]:
    due = await asyncio.to_thread(_due, engine, plan, until, cursor, limit)
    if due:
        await enqueue_touches(queue, plan, due)
        # Marked last: a failure before leaves them planned.
        await asyncio.to_thread(_mark_queued, engine, [row.id for row in due])
    return due


def _unknown_domains(
    engine: sa.Engine, plan: SubmitPlan, cursor: int, until: datetime, now: datetime, limit: int
) -> list[str]:
    with read(engine) as connection:
        return domains_to_look_up(connection, plan.campaign_id, after_id=cursor, until=until, now=now, limit=limit)


def _due(engine: sa.Engine, plan: SubmitPlan, until: datetime, cursor: int, limit: int) -> Sequence[sa.Row[Any]]:
    with read(engine) as connection:
        due = due_touches(connection, plan.campaign_id, after_id=cursor, until=until, limit=limit)
        return touch_rows(connection, due)


def _mark_queued(engine: sa.Engine, touch_ids: Sequence[int]) -> None:
    with write(engine) as connection:
        mark_queued(connection, touch_ids)


_TOUCH_COLUMNS: tuple[sa.ColumnClause[Any], ...] = (
    *(sa.column(name, sa.Integer()) for name in ("id", "step_id")),
    *(sa.column(name) for name in ("due_at", "next_at")),  # without their type: see epoch_ms
    *(sa.column(name, kind) for name, kind in (("address", sa.Text()), ("attributes", sa.JSON()))),
    *(sa.column(name, sa.Text()) for name in ("time_zone", "provider", "site")),
    *(sa.column(name, kind) for name, kind in (("sender_id", sa.Integer()), ("variant", sa.Text()))),
    *(sa.column(name, sa.JSON()) for name in ("request_fields", "request_files")),
)


def touch_rows(connection: sa.Connection, touch_ids: Collection[int]) -> Sequence[sa.Row[Any]]:
    """Read the columns that make the jobs of touches, the first due first."""
    if not touch_ids:
        return []
    item, parameters = json_rows(connection, "batch", {"id": sa.BigInteger()}, [{"id": i} for i in touch_ids])
    statement = sa.text(
        f"SELECT touch.id, touch.step_id, {LEAVES_AT} AS due_at, touch.next_at, recipient.address, "
        "recipient.attributes, recipient.time_zone, mail_domain.provider, mail_domain.site, "
        "COALESCE(touch.sender_id, 0) AS sender_id, COALESCE(touch.variant, '') AS variant, "
        # Subqueries look up the few requests of the batch. For a join, the database may read all of them.
        f"{_of_request('fields')}, {_of_request('files')} "
        f"FROM {item} JOIN touch ON touch.id = batch.id JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        "ORDER BY touch.due_at, touch.id"
    ).columns(*_TOUCH_COLUMNS)
    return connection.execute(statement, parameters).all()


def _of_request(name: str) -> str:
    return (
        "CASE WHEN touch.request_id > 0 THEN (SELECT message_request."
        f"{name} FROM message_request WHERE message_request.id = touch.request_id) END AS request_{name}"
    )


async def enqueue_by_id(
    engine: sa.Engine, queue: Queue, plan: SubmitPlan, touch_ids: Collection[int], *, since_ms: int = 0
) -> None:
    """Enqueue touches of one campaign by their ids. See `enqueue_touches`."""

    def rows() -> Sequence[sa.Row[Any]]:
        with read(engine) as connection:
            return touch_rows(connection, touch_ids)

    await enqueue_touches(queue, plan, await asyncio.to_thread(rows), since_ms=since_ms)


async def enqueue_touches(queue: Queue, plan: SubmitPlan, rows: Sequence[sa.Row[Any]], *, since_ms: int = 0) -> None:
    """Enqueue touches, several lanes at once.

    Args:
        queue: The queue of the campaign.
        plan: What the touches share.
        rows: The touches, as `touch_rows` returns them.
        since_ms: A touch expires `SubmitOptions.expire_ms` after it is due, or after this Unix time in ms if later.

    Raises:
        UnavailableError: The queue is unavailable. Some touches may have been enqueued.
    """
    # Jobs of one lane are packed while the server works on another. Each call in progress holds a connection.
    slots = asyncio.Semaphore(MAX_CONCURRENT_LANES)

    async def put(sender_id: int, receiver: Receiver, jobs: list[Job]) -> None:
        async with slots:
            await queue.enqueue(_lane(plan, sender_id, receiver), jobs)

    lanes = _jobs_by_lane(plan, rows, since_ms)
    if plan.options.gates is not None:
        await plan.options.gates.limit([gate for key in lanes for gate in _lane(plan, *key).gates])
    results = await asyncio.gather(*(put(*key, jobs) for key, jobs in lanes.items()), return_exceptions=True)
    for result in results:
        if result is not None:
            raise result


def _jobs_by_lane(
    plan: SubmitPlan, rows: Sequence[sa.Row[Any]], since_ms: int
) -> dict[tuple[int, Receiver], list[Job]]:
    busy = _busy_sites(rows)
    has_holidays = bool(plan.campaign.sending_window and plan.campaign.sending_window.get("holidays"))
    receivers: dict[str, tuple[Receiver, str]] = {}
    lanes: dict[tuple[int, Receiver], list[Job]] = defaultdict(list)
    for row in rows:
        id_, step_id, due_at, next_at, address, attributes, zone, provider, known_site, sender_id, variant = row[:11]
        attributes = {**attributes, **(row.request_fields or {})}
        domain = domain_of(address)
        if domain not in receivers:
            receivers[domain] = _receiver(domain, provider, known_site, plan.options.shaping, busy)
        receiver, site = receivers[domain]
        message = SendJob(
            touch_id=id_,
            step_id=step_id,
            address=address,
            fields={name: str(attributes[name]) for name in plan.fields[step_id] if name in attributes},
            zone=zone or "",
            provider=receiver.provider,
            site=site,
            shaping_overrides=receiver.shaping_overrides,
            sender_id=sender_id,
            version=plan.versions[step_id],
            place=_place(attributes) if has_holidays else "",
            files=tuple(AttachedFile(**file) for file in row.request_files or ()),
            variant=variant,
        )
        due_ms = epoch_ms(due_at)
        lanes[sender_id, receiver].append(
            Job(
                id=job_id(id_),
                payload=encode_job(message),
                due_ms=due_ms if next_at is None else max(due_ms, epoch_ms(next_at)),
                expires_ms=max(due_ms, since_ms) + plan.options.expire_ms,
            )
        )
    return lanes


def _place(attributes: Mapping[str, Any]) -> str:
    return place_of(attributes.get(COUNTRY_FIELD), attributes.get(SUBDIVISION_FIELD))


def _lane(plan: SubmitPlan, sender_id: int, receiver: Receiver) -> Lane:
    sender = plan.senders[sender_id]
    return lane_of(
        sender=sender.address,
        receiver=receiver,
        campaign=plan.campaign.name,
        route=sender.route,
        job_class=plan.campaign.job_class,
        warmup=plan.options.warming.get(sender.address, ()),
    )


def _receiver(
    domain: str, provider: str | None, site: str | None, shaping: Shaping | None, busy: set[str]
) -> tuple[Receiver, str]:
    """Return whose limits apply to a domain, and its site.

    They come from the table of well-known domains, else from the last DNS lookup, else the domain is its own site.
    """
    well_known = provider_table().of_domain(domain)
    if well_known is not None:
        provider = site = well_known
    elif provider is None or site is None:
        provider, site = OTHER_PROVIDERS, domain
    receiver = shaping.receiver_of(provider, site, domain) if shaping is not None else Receiver(provider)
    has_own_lane = provider == OTHER_PROVIDERS and receiver == Receiver(OTHER_PROVIDERS) and site in busy
    return Receiver(site) if has_own_lane else receiver, site


def _busy_sites(rows: Sequence[sa.Row[Any]]) -> set[str]:
    """Return the sites of no known provider that get a lane of their own. The others share one for each sender."""
    sites = Counter(row.site for row in rows if row.provider == OTHER_PROVIDERS)
    return {site for site, count in sites.items() if count >= OWN_LANE_THRESHOLD}
