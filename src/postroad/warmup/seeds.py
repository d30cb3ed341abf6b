"""Warmup mail proper: each day some messages to a seed list, that of people who own its mailboxes or asked for it.

A day's mail is a campaign of its own with one step, so it goes the way of any other: audience, preflight, touches,
queue, admission, outcomes. What is special is decided here: how many, to whom, and when within the hours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import sqlalchemy as sa
from msgspec import Struct
from sqlmodel import col

from postroad.campaign.apply import apply
from postroad.campaign.definition import CampaignFile, read_campaign
from postroad.dns.providers import provider_of
from postroad.errors import ConfigError
from postroad.settings import SeedSettings, Settings
from postroad.store import warmup as store
from postroad.store.bulk import json_rows
from postroad.store.campaign import Campaign, CampaignState, find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.suppression import suppressed_sql
from postroad.store.types import UtcDateTime, sql_instant
from postroad.warmup.caps import effective, hours_of
from postroad.warmup.day import count_mail, count_seeds, day_of, midnight
from postroad.warmup.health import Counts
from postroad.warmup.identity import WarmingIdentity, of_sender

SHARE = 2
"""A seed list gets no more than one in so many of a cap's messages: the others are what the warmup is for."""


class Seed(NamedTuple):
    """A member of a seed list, and whose limits hold for mail to it."""

    recipient_id: int
    provider: str


class SeedPlan(Struct, frozen=True, kw_only=True):
    """What is planned of a day's mail to a seed list. ``already``: an earlier run did it."""

    campaign: str
    members: int
    planned: int
    already: bool
    permission: str


# -- decided


def choose(seeds: Sequence[Seed], rooms: Mapping[str, int], *, per_day: int, day: date) -> list[Seed]:
    """Return whom a day's mail goes to: in turns through the list, no more than there is room for at each provider."""
    ordered = sorted(seeds)
    first = day.toordinal() * per_day % len(ordered) if ordered else 0
    taken: Counter[str] = Counter()
    chosen: list[Seed] = []
    for seed in [*ordered[first:], *ordered[:first]]:
        if len(chosen) < per_day and taken[seed.provider] < rooms.get(seed.provider, 0):
            taken[seed.provider] += 1
            chosen.append(seed)
    return chosen


def spread(count: int, since: datetime, until: datetime, rng: Random) -> list[datetime]:
    """Instants of so many messages within the hours: each in an equal part of them, and not at its end.

    What lies between two is more than the pace of a cap asks for, of which this is no more than a half.
    """
    part = (until - since) / count if count else timedelta()
    return [since + part * (number + rng.uniform(0, 0.4)) for number in range(count)]


def due_instants(
    chosen: Sequence[Seed], since: datetime, until: datetime, *, seeded_by: str
) -> list[tuple[Seed, datetime]]:
    """Return when each message is due, spread for each provider by itself. The same again for the same words."""
    by_provider: dict[str, list[Seed]] = {}
    for seed in chosen:
        by_provider.setdefault(seed.provider, []).append(seed)
    due: list[tuple[Seed, datetime]] = []
    for provider, of in sorted(by_provider.items()):
        rng = Random(f"{seeded_by} {provider}")  # noqa: S311  (it hides nothing)
        due += zip(rng.sample(of, len(of)), spread(len(of), since, until, rng), strict=True)
    return due


# -- done


def seeds_of(settings: Settings, sender: str) -> SeedSettings | None:
    """Return what the settings say of a sender's seed list. Raises ConfigError for a sender that is warm."""
    of_sender(settings, sender)
    # Of senders that share a domain one plan is taken; a seed list is each sender's own.
    warmup = settings.sender(sender).warmup
    return warmup.seeds if warmup is not None else None


def make_campaign(engine: sa.Engine, settings: Settings, sender: str, now: datetime) -> str | None:
    """Put a day's campaign into the store, as a draft. Returns its name; None: the sender has no seed list.

    The emails of its file take turns. Raises ConfigError for a file that cannot be used.
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
            f"there is a campaign named {name} that is no mail to a seed list",
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
            f"it is of sender {definition.sender!r}, and the seed list is that of {sender!r}",
            where=f"{file.path}, sender",
            remedy=f"Write sender: {sender}, or name another file in senders.{sender}.warmup.seeds.campaign.",
        )
    if any(step.kind != "email" for step in file.steps):
        raise ConfigError(
            "it has a step that waits, and each of its emails is a day's",
            where=f"{file.path}, steps",
            remedy="Leave the wait out: the emails take turns, one a day.",
        )
    if definition.window is not None or any(step.settings["at"] is not None for step in file.steps):
        raise ConfigError(
            "it has hours of its own, and mail to a seed list has those of the warmup",
            where=str(file.path),
            remedy="Leave window and at out.",
        )


def left_over(engine: sa.Engine, settings: Settings, sender: str, today: str) -> list[str]:
    """Return a sender's campaigns of earlier days that may still send: a day's mail goes on no other."""
    address = settings.sender(sender).address
    statement = sa.text(
        "SELECT campaign.name FROM campaign JOIN sender ON sender.id = campaign.sender_id WHERE campaign.warmup "
        "AND sender.address = :address AND campaign.name <> :today AND campaign.state IN ('draft', 'running', 'paused')"
    )
    with read(engine) as connection:
        return list(connection.execute(statement, {"address": address, "today": today}).scalars())


def plan_seeds(engine: sa.Engine, settings: Settings, sender: str, name: str, now: datetime) -> SeedPlan:
    """Make the touches of a day's campaign, each with its instant, and set it running, in one transaction.

    Again: nothing more. Where the hours are over, or a cap leaves no room, there are fewer, or none.
    """
    found = of_sender(settings, sender)
    seeds = seeds_of(settings, sender)
    if seeds is None:
        raise ConfigError(f"sender {sender} has no seed list", where=f"senders.{sender}.warmup.seeds")
    today = day_of(found[0], now)
    with read(engine) as connection:  # Counting takes as long as there is mail: nobody waits for it.
        sent = [count_mail(connection, identity, [today], seeds=False)[today] for identity in found]
    with write(engine) as connection:
        store.one_at_a_time(connection)  # Senders that share a domain share its room.
        campaign = find_campaign(connection, name, for_update=True)
        already = campaign.state is not CampaignState.DRAFT
        members = _members(connection, campaign)
        if not already:
            since, until = _hours(found[0], now)
            left = max((until - since) / hours_of(found[0].warmup), 0.0)
            rooms = _rooms(connection, found, {seed.provider for seed in members}, sent, now)
            rooms = {provider: int(room * left) for provider, room in rooms.items()}
            chosen = choose(members, rooms, per_day=seeds.per_day, day=day_of(found[0], now))
            _plan_touches(connection, campaign, due_instants(chosen, since, until, seeded_by=name))
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


def _rooms(
    connection: sa.Connection,
    found: Sequence[WarmingIdentity],
    providers: Collection[str],
    sent: Sequence[Mapping[str, Counts]],
    now: datetime,
) -> dict[str, int]:
    """By provider: messages to seed lists that today's caps leave room for."""
    newest = {
        (row.identity, row.provider): row
        for row in store.newest_days(connection, [identity.name for identity in found])
    }
    today = day_of(found[0], now)
    planned = [count_seeds(connection, identity, today) for identity in found]
    rooms: dict[str, int] = {}
    for provider in providers:
        cap = effective(found, provider, newest)
        used = max(counts[provider].attempts if provider in counts else 0 for counts in sent)
        taken = max(counts.get(provider, 0) for counts in planned)
        paused = cap.paused_until is not None and cap.paused_until > now
        rooms[provider] = 0 if paused else max(min(cap.cap // SHARE, cap.cap - used) - taken, 0)
    return rooms


def _hours(identity: WarmingIdentity, now: datetime) -> tuple[datetime, datetime]:
    """What is left of today's hours: from when to when. Empty where they are over, or the warmup has not begun."""
    day = day_of(identity, now)
    opens = datetime.combine(day, identity.warmup.opens, identity.zone)
    closes = opens + hours_of(identity.warmup)
    if identity.warmup.start is not None:
        opens = max(opens, midnight(identity.warmup.start, identity.zone))
    return max(opens, now), closes


def _plan_touches(connection: sa.Connection, campaign: Campaign, due: Sequence[tuple[Seed, datetime]]) -> None:
    assert campaign.id is not None  # noqa: S101  (read from its table)
    [step] = steps_of(connection, campaign.id)
    rows = [{"id": seed.recipient_id, "due_at": sql_instant(at, connection.dialect.name)} for seed, at in due]
    columns: dict[str, sa.types.TypeEngine[Any]] = {"id": sa.BigInteger(), "due_at": UtcDateTime()}
    item, parameters = json_rows(connection, "due", columns, rows)
    insert = sa.text(
        "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim) "
        f"SELECT :campaign_id, :step_id, due.id, 'planned', due.due_at, 0 FROM {item} WHERE true "
        "ON CONFLICT (campaign_id, step_id, recipient_id) DO NOTHING"
    )
    connection.execute(insert, {"campaign_id": campaign.id, "step_id": step.id, **parameters})
