"""Overflow: what the caps of a campaign's sender cannot carry in time goes to other senders that it names.

Decided before a touch is on any queue, in a transaction of its own, so that there is never a job of two senders; and
should there be one of an earlier attempt, admission lets only the sender through that the ledger names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from postroad.dns.providers import provider_of
from postroad.settings import Settings, WarmupSettings
from postroad.store import warmup as store
from postroad.store.bulk import json_rows
from postroad.store.campaign import Campaign, CampaignState, find_campaign
from postroad.store.engine import read, write
from postroad.store.types import UtcDateTime
from postroad.warmup.caps import Cap, effective, hours_of
from postroad.warmup.day import count_mail, day_of, midnight
from postroad.warmup.identity import WarmingIdentity, identities

STEP = 1_000
"""Touches that one transaction moves."""


class OverflowSender(Struct, frozen=True, kw_only=True):
    """A sender that may take a campaign's mail. ``rooms``: messages that it can carry in time beside what it has, by
    provider; None: it is warm, and carries any number. A provider that is missing has no room.
    """

    id: int
    name: str
    rooms: Mapping[str, int] | None


class OverflowMove(Struct, frozen=True, kw_only=True):
    """A touch that goes to another sender, and why."""

    touch_id: int
    to: int
    why: str


def carries(
    warmup: WarmupSettings, identity: WarmingIdentity, cap: Cap, used: int, now: datetime, until: datetime
) -> int:
    """Messages that a cap lets through from now until an instant, of which ``used`` are gone today.

    It does not count on growth: whether the cap grows is not known before the day.
    """
    hours = hours_of(warmup)
    left = 0.0
    day = day_of(identity, now)
    begins = max(filter(None, (cap.paused_until, _start(warmup, identity), now)))
    while (opens := datetime.combine(day, warmup.opens, identity.zone)) < until:
        since, end = max(opens, begins), min(opens + hours, until)
        if since < end:
            part = cap.cap * ((end - since) / hours)
            left += min(part, max(cap.cap - used, 0)) if day == day_of(identity, now) else part
        day += timedelta(days=1)
    return int(left)


def _start(warmup: WarmupSettings, identity: WarmingIdentity) -> datetime | None:
    return midnight(warmup.start, identity.zone) if warmup.start is not None else None


def share_out(
    touches: Sequence[tuple[int, str]], own: OverflowSender, others: Sequence[OverflowSender]
) -> list[OverflowMove]:
    """Return which touches, given with their providers in order, go to others. What nobody can carry stays."""
    if own.rooms is None:
        return []
    kept: Counter[str] = Counter()
    taken: Counter[tuple[int, str]] = Counter()
    moves: list[OverflowMove] = []
    for touch_id, provider in touches:
        room = own.rooms.get(provider, 0)
        if kept[provider] < room:
            kept[provider] += 1
            continue
        for other in others:
            if other.rooms is None or taken[other.id, provider] < other.rooms.get(provider, 0):
                taken[other.id, provider] += 1
                why = f"the caps of {own.name} at {provider} carry {room:,} of these in time"
                moves.append(OverflowMove(touch_id=touch_id, to=other.id, why=why))
                break
    return moves


def overflow(engine: sa.Engine, settings: Settings, campaign: str, *, now: datetime, horizon_ms: int) -> int:
    """Give touches of a running campaign that are due, and on no queue yet, to the senders that it names for what its
    own cannot carry. Who was to send them, who does and why is kept. Returns how many moved.

    It is decided by reading, and moved in steps. Where another campaign moved touches meanwhile, which may fill the
    same room, the rest is decided again. Raises UnavailableError; what has moved then stays moved.
    """
    moved, complete = 0, False
    while not complete:
        with read(engine) as connection:
            seen = _last_move(connection)
            found = find_campaign(connection, campaign)
            moves = _decide(connection, settings, found, now, now + timedelta(milliseconds=horizon_ms))
        step, complete = _move_in_steps(engine, found, moves, seen, now)
        moved += step
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
    return share_out(touches, senders[campaign.sender_id], others)


def _move_in_steps(
    engine: sa.Engine, campaign: Campaign, moves: Sequence[OverflowMove], seen: int, now: datetime
) -> tuple[int, bool]:
    """Returns how many moved, and whether that was all. ``seen``: the last move that the decision knew of."""
    moved = 0
    for start in range(0, len(moves), STEP):
        with write(engine) as connection:
            store.one_at_a_time(connection)
            if find_campaign(connection, campaign.name, for_update=True).state is not CampaignState.RUNNING:
                return moved, True
            if _last_move(connection) != seen:
                return moved, False
            moved += _move(connection, moves[start : start + STEP], campaign.sender_id, now)
            seen = _last_move(connection)
    return moved, True


def _last_move(connection: sa.Connection) -> int:
    return int(connection.execute(sa.text("SELECT COALESCE(max(id), 0) FROM overflow")).scalar_one())


def _due(connection: sa.Connection, campaign_id: int | None, until: datetime) -> list[tuple[int, str]]:
    """Touches that nobody else was given, with whose limits hold for them."""
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
    """Senders by id, with their rooms; those that the settings still have, and that nothing holds back."""
    statement = sa.text(
        "SELECT id, name, address FROM sender WHERE id IN :ids AND NOT EXISTS (SELECT 1 FROM sender_hold "
        "WHERE sender_hold.sender = sender.address AND sender_hold.held_at IS NOT NULL "
        "AND sender_hold.ended_at IS NULL)"
    ).bindparams(sa.bindparam("ids", list(ids), expanding=True))
    found: dict[int, OverflowSender] = {}
    for id_, name, address in connection.execute(statement).all():
        if name in settings.senders:
            rooms = _rooms(connection, settings, address, providers, now, until)
            found[id_] = OverflowSender(id=id_, name=name, rooms=rooms)
    return found


def _rooms(
    connection: sa.Connection, settings: Settings, address: str, providers: set[str], now: datetime, until: datetime
) -> dict[str, int] | None:
    """By provider: the least that the identities of a sender can carry in time. None: it is warm."""
    found = [identity for identity in identities(settings) if address in identity.senders]
    if not found:
        return None
    newest = {
        (row.identity, row.provider): row
        for row in store.newest_days(connection, [identity.name for identity in found])
    }
    rooms: dict[str, int] = {}
    for identity in found:
        today = day_of(identity, now)
        sent = count_mail(connection, identity, [today])[today]
        waiting: Counter[str] = Counter()
        for _, domain, known, touches in store.under_way(connection, identity.senders):
            waiting[provider_of(domain, known)] += touches
        for provider in providers:
            cap = effective([identity], provider, newest)
            used = sent[provider].attempts if provider in sent else 0
            room = max(carries(identity.warmup, identity, cap, used, now, until) - waiting[provider], 0)
            rooms[provider] = min(room, rooms.get(provider, room))
    return rooms


def _move(connection: sa.Connection, moves: Sequence[OverflowMove], from_sender_id: int, now: datetime) -> int:
    rows = [{"id": move.touch_id, "sender": move.to, "why": move.why[:200]} for move in moves]
    columns: dict[str, sa.types.TypeEngine[Any]] = {"id": sa.BigInteger(), "sender": sa.BigInteger(), "why": sa.Text()}
    item, parameters = json_rows(connection, "moved", columns, rows)
    update = sa.text(
        f"UPDATE touch SET sender_id = moved.sender FROM {item} WHERE touch.id = moved.id "
        "AND touch.state = 'planned' AND touch.sender_id IS NULL RETURNING touch.id"
    )
    done = connection.execute(update, parameters).scalars().all()
    keep = sa.text(
        "INSERT INTO overflow (touch_id, from_sender_id, sender_id, at, why) "
        f"SELECT moved.id, :own, moved.sender, :now, moved.why FROM {item} "
        "JOIN touch ON touch.id = moved.id AND touch.sender_id = moved.sender WHERE true"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    connection.execute(keep, {"own": from_sender_id, "now": now, **parameters})
    return len(done)
