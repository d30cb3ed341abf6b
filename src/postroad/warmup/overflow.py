"""Overflow: moves touches that exceed the caps of a campaign's sender to the other senders that the campaign names.

The move is decided in a separate transaction before a touch is enqueued, so that a touch never has jobs of two
senders. If an earlier attempt left a job, admission accepts only the sender that the ledger names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from msgspec import Struct

from postroad.dns.providers import provider_of
from postroad.settings import Settings, WarmupSettings
from postroad.store import warmup as store
from postroad.store.campaign import Campaign, CampaignState, find_campaign
from postroad.store.engine import read, write
from postroad.store.touches.sending import NewSender, assign_senders
from postroad.store.types import UtcDateTime
from postroad.warmup.caps import Cap, effective_cap, hours_of
from postroad.warmup.day import count_mail, day_of, midnight
from postroad.warmup.identity import WarmingIdentity, identities

BATCH_SIZE = 1_000
"""Touches that one transaction moves."""

_TICK = timedelta(microseconds=1)


class OverflowSender(Struct, frozen=True, kw_only=True):
    """A sender that may take a campaign's mail."""

    id: int
    name: str
    capacities: Mapping[str, int] | None
    """Additional messages that it can send in time, by provider; a missing provider has none. None: no limit, because
    the sender does not warm up."""


class OverflowMove(Struct, frozen=True, kw_only=True):
    """A touch that moves to another sender, with the reason."""

    touch_id: int
    to: int
    why: str


def capacity_until(
    warmup: WarmupSettings, identity: WarmingIdentity, cap: Cap, used: int, now: datetime, until: datetime
) -> int:
    """Return how many more messages a cap allows between ``now`` and ``until``.

    Growth is not counted, because a day's cap is decided only on that day.

    Args:
        warmup: Settings of the warmup, with its working hours.
        identity: The identity that has the cap.
        cap: Its current cap.
        used: Messages of today that count against the cap.
        now: Start of the interval.
        until: End of the interval.
    """
    hours = hours_of(warmup)
    left = 0  # In messages times ticks: a sum of fractions of a cap is often a hair below the cap.
    day = day_of(identity, now)
    begins = max(filter(None, (cap.paused_until, _start(warmup, identity), now)))
    while (opens := datetime.combine(day, warmup.opens, identity.zone)) < until:
        since, end = max(opens, begins), min(opens + hours, until)
        if since < end:
            part = cap.cap * ((end - since) // _TICK)
            unused = max(cap.cap - used, 0) * (hours // _TICK)
            left += min(part, unused) if day == day_of(identity, now) else part
        day += timedelta(days=1)
    return left // (hours // _TICK)


def _start(warmup: WarmupSettings, identity: WarmingIdentity) -> datetime | None:
    return midnight(warmup.start, identity.zone) if warmup.start is not None else None


def allocate(
    touches: Sequence[tuple[int, str]], own: OverflowSender, others: Sequence[OverflowSender]
) -> list[OverflowMove]:
    """Allocate touches that exceed the capacity of their own sender to other senders, in the order of ``others``.

    Args:
        touches: Ids of touches with their providers, in order.
        own: The campaign's sender.
        others: The other senders, in order of preference.

    Returns:
        The moves. A touch that no other sender can take has none.
    """
    if own.capacities is None:
        return []
    kept: Counter[str] = Counter()
    taken: Counter[tuple[int, str]] = Counter()
    moves: list[OverflowMove] = []
    for touch_id, provider in touches:
        capacity = own.capacities.get(provider, 0)
        if kept[provider] < capacity:
            kept[provider] += 1
            continue
        for other in others:
            if other.capacities is None or taken[other.id, provider] < other.capacities.get(provider, 0):
                taken[other.id, provider] += 1
                why = f"the caps of {own.name} at {provider} allow {capacity:,} of these in time"
                moves.append(OverflowMove(touch_id=touch_id, to=other.id, why=why))
                break
    return moves


def overflow(engine: sa.Engine, settings: Settings, campaign: str, *, now: datetime, horizon_ms: int) -> int:
    """Move due touches that exceed the caps of a campaign's sender to the other senders that the campaign names.

    Only touches of a running campaign that are not enqueued yet are moved. Each move is recorded with both senders and
    the reason. The moves are decided in a read transaction and written in batches. If another campaign moved touches
    meanwhile, which may use the same capacity, the remaining moves are decided again.

    Args:
        engine: The ledger.
        settings: The settings with the senders.
        campaign: Name of the campaign.
        now: The time.
        horizon_ms: Touches that are due within this time from ``now`` are considered, in ms.

    Returns:
        The number of moved touches.

    Raises:
        UnavailableError: The database is unreachable. Batches that are already written stay.
    """
    moved, complete = 0, False
    while not complete:
        with read(engine) as connection:
            seen = _last_move(connection)
            row = find_campaign(connection, campaign)
            moves = _decide(connection, settings, row, now, now + timedelta(milliseconds=horizon_ms))
        count, complete = _move_in_steps(engine, row, moves, seen, now)
        moved += count
    return moved


def _decide(
    connection: sa.Connection, settings: Settings, campaign: Campaign, now: datetime, horizon: datetime
) -> list[OverflowMove]:
    if campaign.overflow is None or campaign.state is not CampaignState.RUNNING:
        return []
    until = now + timedelta(milliseconds=campaign.overflow["within_ms"])
    touches = _due(connection, campaign.id, horizon)
    providers = {provider for _, provider in touches}
    ids = [campaign.sender_id, *campaign.overflow["senders"]]
    senders = _senders(connection, settings, ids, providers, now, until)
    if campaign.sender_id not in senders:
        return []
    others = [senders[id_] for id_ in campaign.overflow["senders"] if id_ in senders]
    return allocate(touches, senders[campaign.sender_id], others)


def _move_in_steps(
    engine: sa.Engine, campaign: Campaign, moves: Sequence[OverflowMove], seen: int, now: datetime
) -> tuple[int, bool]:
    """Write moves in batches, as long as no other campaign moves touches.

    Args:
        engine: The ledger.
        campaign: The campaign.
        moves: The decided moves.
        seen: Id of the last move in the ledger at the time of the decision.
        now: The time.

    Returns:
        How many touches moved, and whether the work is complete. If not, the rest is to be decided again.
    """
    moved = 0
    for start in range(0, len(moves), BATCH_SIZE):
        with write(engine) as connection:
            store.acquire_lock(connection)
            if find_campaign(connection, campaign.name, for_update=True).state is not CampaignState.RUNNING:
                return moved, True
            if _last_move(connection) != seen:
                return moved, False
            chosen = [NewSender(move.touch_id, move.to, move.why) for move in moves[start : start + BATCH_SIZE]]
            moved += assign_senders(connection, chosen, campaign.sender_id, now)
            seen = _last_move(connection)
    return moved, True


def _last_move(connection: sa.Connection) -> int:
    return int(connection.execute(sa.text("SELECT COALESCE(max(id), 0) FROM overflow")).scalar_one())


def _due(connection: sa.Connection, campaign_id: int | None, until: datetime) -> list[tuple[int, str]]:
    """Return the due touches that have not moved yet, each with the provider whose cap applies."""
    statement = sa.text(
        "SELECT touch.id, recipient.domain, mail_domain.provider FROM touch "
        "JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        "WHERE touch.campaign_id = :campaign_id AND touch.state = 'planned' AND touch.due_at <= :until "
        "AND touch.sender_id IS NULL ORDER BY touch.due_at, touch.id"
    ).bindparams(sa.bindparam("until", type_=UtcDateTime()))
    rows = connection.execute(statement, {"campaign_id": campaign_id, "until": until})
    return [(id_, provider_of(domain, known)) for id_, domain, known in rows]


def _senders(
    connection: sa.Connection,
    settings: Settings,
    ids: Sequence[int],
    providers: set[str],
    now: datetime,
    until: datetime,
) -> dict[int, OverflowSender]:
    """Return the senders with their capacities, by id: those that are still in the settings and not on hold."""
    statement = sa.text(
        "SELECT id, name, address FROM sender WHERE id IN :ids AND NOT EXISTS (SELECT 1 FROM sender_hold "
        "WHERE sender_hold.sender = sender.address AND sender_hold.held_at IS NOT NULL "
        "AND sender_hold.ended_at IS NULL)"
    ).bindparams(sa.bindparam("ids", list(ids), expanding=True))
    senders: dict[int, OverflowSender] = {}
    for id_, name, address in connection.execute(statement).all():
        if name in settings.senders:
            capacities = _capacities(connection, settings, address, providers, now, until)
            senders[id_] = OverflowSender(id=id_, name=name, capacities=capacities)
    return senders


def _capacities(
    connection: sa.Connection, settings: Settings, address: str, providers: set[str], now: datetime, until: datetime
) -> dict[str, int] | None:
    """Return the smallest capacity of a sender's identities, by provider; None if the sender does not warm up."""
    found = [identity for identity in identities(settings) if address in identity.senders]
    if not found:
        return None
    newest = {
        (row.identity, row.provider): row
        for row in store.newest_days(connection, [identity.name for identity in found])
    }
    capacities: dict[str, int] = {}
    for identity in found:
        today = day_of(identity, now)
        sent = count_mail(connection, identity, [today])[today]
        waiting: Counter[str] = Counter()
        for _, domain, known, touches in store.under_way(connection, identity.senders):
            waiting[provider_of(domain, known)] += touches
        for provider in providers:
            cap = effective_cap([identity], provider, newest)
            used = sent[provider].attempts if provider in sent else 0
            capacity = max(capacity_until(identity.warmup, identity, cap, used, now, until) - waiting[provider], 0)
            capacities[provider] = min(capacity, capacities.get(provider, capacity))
    return capacities
