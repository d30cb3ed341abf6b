"""Seed mail: each day some messages to a seed list, whose members own the mailboxes or gave their permission.

A day's seed mail is a separate campaign with one step. It passes the same stages as any campaign: audience, preflight,
touches, queue, admission, outcomes. This module decides how many messages there are, to whom, and when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from random import Random
from typing import NamedTuple

import sqlalchemy as sa
from msgspec import Struct
from sqlmodel import col

from postroad.campaign.apply import apply
from postroad.campaign.definition import CampaignFile, read_campaign
from postroad.dns.providers import provider_of
from postroad.errors import ConfigError
from postroad.settings import SeedSettings, Settings
from postroad.store import warmup as store
from postroad.store.campaign import Campaign, CampaignState, find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.suppression import suppressed_sql
from postroad.store.touches.planning import SeedTouch, plan_seed_touches
from postroad.warmup.caps import effective_cap, hours_of
from postroad.warmup.day import count_mail, count_seeds, day_of, midnight
from postroad.warmup.health import Counts
from postroad.warmup.identity import WarmingIdentity, of_sender

CAP_DIVISOR = 2
"""Seed mail gets at most the cap divided by this. The rest is for the mail that the warmup exists for."""


class Seed(NamedTuple):
    """A member of a seed list, with the mailbox provider whose cap applies."""

    recipient_id: int
    provider: str


class SeedPlan(Struct, frozen=True, kw_only=True):
    """The planned seed mail of a day. ``already``: an earlier run planned it."""

    campaign: str
    members: int
    planned: int
    already: bool
    permission: str


# -- pure decisions


def choose_seeds(seeds: Sequence[Seed], capacities: Mapping[str, int], *, per_day: int, day: date) -> list[Seed]:
    """Choose the recipients of a day's seed mail, rotating through the list from day to day.

    Args:
        seeds: All members of the list.
        capacities: Largest number of messages, by provider.
        per_day: Largest number of messages of the day.
        day: The day, which sets where in the list to begin.

    Returns:
        The chosen members.
    """
    ordered = sorted(seeds)
    first = day.toordinal() * per_day % len(ordered) if ordered else 0
    taken: Counter[str] = Counter()
    chosen: list[Seed] = []
    for seed in [*ordered[first:], *ordered[:first]]:
        if len(chosen) < per_day and taken[seed.provider] < capacities.get(seed.provider, 0):
            taken[seed.provider] += 1
            chosen.append(seed)
    return chosen


def spread(count: int, since: datetime, until: datetime, rng: Random) -> list[datetime]:
    """Return ``count`` times between ``since`` and ``until``: one in the first 40 % of each equal part.

    Seed mail is at most half of a cap, so the gaps are longer than the cap's rate requires.
    """
    part = (until - since) / count if count else timedelta()
    return [since + part * (number + rng.uniform(0, 0.4)) for number in range(count)]


def due_times(
    chosen: Sequence[Seed], since: datetime, until: datetime, *, seeded_by: str
) -> list[tuple[Seed, datetime]]:
    """Return when each message is due, spread for each provider separately.

    Args:
        chosen: The recipients.
        since: Start of the interval.
        until: End of the interval.
        seeded_by: Seed of the random generator; the same seed gives the same times.

    Returns:
        Each recipient with its due time.
    """
    by_provider: dict[str, list[Seed]] = {}
    for seed in chosen:
        by_provider.setdefault(seed.provider, []).append(seed)
    due: list[tuple[Seed, datetime]] = []
    for provider, of in sorted(by_provider.items()):
        rng = Random(f"{seeded_by} {provider}")  # noqa: S311  (it hides nothing)
        due += zip(rng.sample(of, len(of)), spread(len(of), since, until, rng), strict=True)
    return due


# -- planning


def seeds_of(settings: Settings, sender: str) -> SeedSettings | None:
    """Return the settings of a sender's seed list, or None if it has no seed list.

    Args:
        settings: The settings.
        sender: Name of the sender.

    Returns:
        The settings of its seed list.

    Raises:
        ConfigError: The sender is not in postroad.toml, or does not warm up.
    """
    of_sender(settings, sender)
    # Senders that share a domain share one plan, but each sender has its own seed list.
    warmup = settings.sender(sender).warmup
    return warmup.seeds if warmup is not None else None


def make_campaign(engine: sa.Engine, settings: Settings, sender: str, now: datetime) -> str | None:
    """Store the seed campaign of a day as a draft. The emails of its file alternate from day to day.

    Args:
        engine: Database to store the campaign in.
        settings: The settings.
        sender: Name of the sender.
        now: The time, which selects the day.

    Returns:
        The name of the campaign, or None if the sender has no seed list.

    Raises:
        ConfigError: The file of the seed campaign cannot be used.
    """
    seeds = seeds_of(settings, sender)
    if seeds is None:
        return None
    file = read_campaign(seeds.campaign, settings)
    _require_fit(file, sender)
    day = day_of(of_sender(settings, sender)[0], now)
    name = f"{file.definition.name}-{day}"
    with read(engine) as connection:
        known = connection.execute(
            sa.select(col(Campaign.state), col(Campaign.warmup)).where(col(Campaign.name) == name)
        ).one_or_none()
    if known is not None and not known.warmup:
        raise ConfigError(
            f"campaign {name} exists already and is not a seed campaign",
            where=str(seeds.campaign),
            remedy="Give the seed list's campaign another name.",
        )
    if known is None or known.state is CampaignState.DRAFT:
        step = file.steps[day.toordinal() % len(file.steps)]
        definition = file.definition.model_copy(update={"name": name})
        apply(engine, settings, replace(file, definition=definition, steps=(step,)), now, warmup=True)
    return name


def _require_fit(file: CampaignFile, sender: str) -> None:
    definition = file.definition
    if definition.sender != sender:
        raise ConfigError(
            f"the campaign is of sender {definition.sender!r}, but the seed list is that of {sender!r}",
            where=f"{file.path}, sender",
            remedy=f"Write sender: {sender}, or name another file in senders.{sender}.warmup.seeds.campaign.",
        )
    if any(step.kind != "email" for step in file.steps):
        raise ConfigError(
            "the campaign has a step that waits, but a seed campaign sends one email a day",
            where=f"{file.path}, steps",
            remedy="Remove the wait: the emails alternate from day to day.",
        )
    if any(step.settings.get("variants") for step in file.steps):
        raise ConfigError(
            "a step has variants, but a seed campaign sends the same message to the whole list",
            where=f"{file.path}, steps",
            remedy="Remove variants and winner.",
        )
    if definition.window_row is not None or any(step.settings["at"] is not None for step in file.steps):
        raise ConfigError(
            "the campaign has a window or times, or holidays, but seed mail uses the hours of the warmup",
            where=str(file.path),
            remedy="Remove window, holidays and at.",
        )


def stale_campaigns(engine: sa.Engine, settings: Settings, sender: str, today: str) -> list[str]:
    """Return a sender's seed campaigns of earlier days that may still send, so that they can be ended."""
    address = settings.sender(sender).address
    statement = sa.text(
        "SELECT campaign.name FROM campaign JOIN sender ON sender.id = campaign.sender_id WHERE campaign.warmup "
        "AND sender.address = :address AND campaign.name <> :today AND campaign.state IN ('draft', 'running', 'paused')"
    )
    with read(engine) as connection:
        return list(connection.execute(statement, {"address": address, "today": today}).scalars())


def plan_seeds(engine: sa.Engine, settings: Settings, sender: str, name: str, now: datetime) -> SeedPlan:
    """Create the touches of a day's seed campaign with their due times, and start it, in one transaction. Idempotent.

    If the working hours are over or a cap is used up, fewer touches are created, or none.

    Args:
        engine: The ledger.
        settings: The settings.
        sender: Name of the sender.
        name: Name of the campaign, from `make_campaign`.
        now: The time.

    Returns:
        The plan of the day.

    Raises:
        ConfigError: The sender has no seed list.
    """
    group = of_sender(settings, sender)
    seeds = seeds_of(settings, sender)
    if seeds is None:
        raise ConfigError(f"sender {sender} has no seed list", where=f"senders.{sender}.warmup.seeds")
    today = day_of(group[0], now)
    with read(engine) as connection:  # Counting is slow for much mail, so it runs before the lock is taken.
        sent = [count_mail(connection, identity, [today], seeds=False)[today] for identity in group]
    with write(engine) as connection:
        store.acquire_lock(connection)  # Senders that share a domain share its capacity.
        campaign = find_campaign(connection, name, for_update=True)
        already = campaign.state is not CampaignState.DRAFT
        members = _members(connection, campaign)
        if not already:
            since, until = _hours(group[0], now)
            left = max((until - since) / hours_of(group[0].warmup), 0.0)
            whole_day = _capacities(connection, group, {seed.provider for seed in members}, sent, now)
            capacities = {provider: int(capacity * left) for provider, capacity in whole_day.items()}
            chosen = choose_seeds(members, capacities, per_day=seeds.per_day, day=day_of(group[0], now))
            _plan_touches(connection, campaign, due_times(chosen, since, until, seeded_by=name))
            values = {"state": CampaignState.RUNNING, "launched_at": now}
            connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign.id).values(**values))
        counted = sa.text("SELECT count(*) FROM touch WHERE campaign_id = :id")
        planned = int(connection.execute(counted, {"id": campaign.id}).scalar_one())
    return SeedPlan(
        campaign=name,
        members=len(members),
        planned=planned,
        already=already,
        permission=seeds.permission.value,
    )


def _members(connection: sa.Connection, campaign: Campaign) -> list[Seed]:
    statement = sa.text(
        "SELECT recipient.id, recipient.domain, mail_domain.provider FROM campaign "
        "JOIN audience_member ON audience_member.audience_id = campaign.audience_id "
        "JOIN recipient ON recipient.id = audience_member.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        f"WHERE campaign.id = :id AND NOT {suppressed_sql()}"
    )
    rows = connection.execute(statement, {"id": campaign.id})
    return [Seed(id_, provider_of(domain, known)) for id_, domain, known in rows]


def _capacities(
    connection: sa.Connection,
    group: Sequence[WarmingIdentity],
    providers: Collection[str],
    sent: Sequence[Mapping[str, Counts]],
    now: datetime,
) -> dict[str, int]:
    """Return how many more messages to seed lists today's caps allow, by provider."""
    newest = {
        (row.identity, row.provider): row
        for row in store.newest_days(connection, [identity.name for identity in group])
    }
    today = day_of(group[0], now)
    planned = [count_seeds(connection, identity, today) for identity in group]
    capacities: dict[str, int] = {}
    for provider in providers:
        cap = effective_cap(group, provider, newest)
        used = max(counts[provider].attempts if provider in counts else 0 for counts in sent)
        taken = max(counts.get(provider, 0) for counts in planned)
        paused = cap.paused_until is not None and cap.paused_until > now
        capacities[provider] = 0 if paused else max(min(cap.cap // CAP_DIVISOR, cap.cap - used) - taken, 0)
    return capacities


def _hours(identity: WarmingIdentity, now: datetime) -> tuple[datetime, datetime]:
    """Return start and end of what is left of today's working hours. The end is before the start if none are left."""
    day = day_of(identity, now)
    opens = datetime.combine(day, identity.warmup.opens, identity.zone)
    closes = opens + hours_of(identity.warmup)
    if identity.warmup.start is not None:
        opens = max(opens, midnight(identity.warmup.start, identity.zone))
    return max(opens, now), closes


def _plan_touches(connection: sa.Connection, campaign: Campaign, due: Sequence[tuple[Seed, datetime]]) -> None:
    assert campaign.id is not None  # noqa: S101  (read from its table)
    [step] = steps_of(connection, campaign.id)
    assert step.id is not None  # noqa: S101  (read from its table)
    plan_seed_touches(connection, campaign.id, step.id, [SeedTouch(seed.recipient_id, at) for seed, at in due])
