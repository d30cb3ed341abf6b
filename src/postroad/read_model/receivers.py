"""Who is slow or refuses: outcomes by sender and mailbox provider, the messages of each number, and the replies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import sqlalchemy as sa
from msgspec import Struct

from postroad.errors import unknown_name
from postroad.read_model.page import DEFAULT_LIMIT, Page, checked_limit, decode_cursor, encode_cursor, to_page
from postroad.read_model.reply_key import ReplyKey, reply_key
from postroad.store.event_page import (
    OutcomeRow,
    ReceiverOutcome,
    ReplyRow,
    complaint_page,
    complaint_rows,
    newest_replies,
    outcome_page,
    outcomes_by_ids,
)
from postroad.store.keyset import LAST_ID
from postroad.store.outcome import DeliveryOutcome
from postroad.store.traffic import bucket_start, traffic_by_receiver, traffic_of_receiver

GROUPED: Final = 2_000
"""Events whose replies are grouped, the newest ones."""
_CHUNK: Final = 500
_LATEST: Final = timedelta(days=1)
"""How far in the future the time of an event may be: the clocks of two machines differ."""


class TrafficWindow(StrEnum):
    """How far back a page looks."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"

    @property
    def length(self) -> timedelta:
        return _LENGTHS[self]


_RECENT: Final = timedelta(minutes=10)
_LENGTHS: Final = {
    TrafficWindow.HOUR: timedelta(hours=1),
    TrafficWindow.DAY: timedelta(hours=24),
    TrafficWindow.WEEK: timedelta(days=7),
}


def window_start(window: TrafficWindow, now: datetime) -> datetime:
    """Return the time from which the numbers of a window count: its begin, rounded down to a minute or an hour."""
    return bucket_start(now - window.length, now)


class ReceiverTraffic(Struct, frozen=True, kw_only=True):
    """Outcomes from one sender to one mailbox provider. ``per_minute``: accepted messages a minute of the window.

    ``address``: From address of the sender; empty: the ledger has no such sender. ``recent``: outcomes of attempts a
    minute of the last ten minutes, which is what a rate limits.
    """

    sender: str
    address: str
    provider: str
    accepted: int
    deferred: int
    bounced: int
    complained: int
    dead: int
    unknown: int
    per_minute: float
    recent: float


class Receivers(Struct, frozen=True, kw_only=True):
    """Outcomes since a time. ``rows``: in the order of senders, those with the most mail first."""

    since: datetime
    rows: Sequence[ReceiverTraffic]


def receivers(
    connection: sa.Connection, now: datetime, window: TrafficWindow, *, sender: str | None = None
) -> Receivers:
    """Return the outcomes of a window by sender and mailbox provider.

    Args:
        connection: A connection in a transaction.
        now: The time.
        window: How far back.
        sender: Name of a sender; None: all senders.

    Returns:
        The outcomes.

    Raises:
        StateError: No campaign has this sender.
    """
    since = window_start(window, now)
    recent_since = bucket_start(now - _RECENT, now)
    senders = _senders(connection)
    chosen = None if sender is None else [_sender_id(senders, sender)]
    counts, recent = (_counts(connection, start, chosen) for start in (since, recent_since))
    rows = [
        ReceiverTraffic(
            sender=senders[sender_id][0] if sender_id in senders else f"sender {sender_id}",
            address=senders[sender_id][1] if sender_id in senders else "",
            provider=provider,
            **{outcome.value: of_receiver[outcome] for outcome in DeliveryOutcome},
            per_minute=of_receiver[DeliveryOutcome.ACCEPTED] / _minutes(since, now),
            recent=_attempts(recent[sender_id, provider]) / _minutes(recent_since, now),
        )
        for (sender_id, provider), of_receiver in counts.items()
    ]
    rows = [row for row in rows if any(getattr(row, outcome) for outcome in DeliveryOutcome)]
    return Receivers(
        since=since, rows=sorted(rows, key=lambda row: (row.sender, -row.accepted - row.deferred, row.provider))
    )


def _counts(
    connection: sa.Connection, since: datetime, sender_ids: Sequence[int] | None
) -> defaultdict[tuple[int, str], Counter[str]]:
    counts: defaultdict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for row in traffic_by_receiver(connection, since, sender_ids=sender_ids):
        counts[row.sender_id, row.provider][row.outcome] += row.events
    return counts


def _attempts(counts: Counter[str]) -> int:
    return counts.total() - counts[DeliveryOutcome.COMPLAINED]


def _minutes(since: datetime, now: datetime) -> float:
    return max((now - since).total_seconds() / 60, 1.0)


def _senders(connection: sa.Connection) -> dict[int, tuple[str, str]]:
    """Return the name and the From address of each sender."""
    rows = connection.execute(sa.text("SELECT id, name, address FROM sender"))
    return {row.id: (row.name, row.address) for row in rows}


def _sender_id(senders: dict[int, tuple[str, str]], sender: str) -> int:
    for id_, (name, _) in senders.items():
        if name == sender:
            return id_
    known = [name for name, _ in senders.values()]
    raise unknown_name("sender of a campaign", sender, known, listed_by="postroad dns senders")


class OutcomesOf(Struct, frozen=True, kw_only=True):
    """What a list shows: outcomes of one kind, from one sender to one mailbox provider, since a time."""

    sender: str
    provider: str
    outcome: DeliveryOutcome
    since: datetime


def receiver_events(
    connection: sa.Connection, of: OutcomesOf, now: datetime, *, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[OutcomeRow]:
    """Return the messages of one number of `receivers`, the newest first.

    Args:
        connection: A connection in a transaction.
        of: Which messages; ``since`` as `receivers` returns it.
        now: The time.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page. A page of complaints may have fewer rows than ``limit`` and be followed by another.

    Raises:
        StateError: No campaign has this sender.
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    what = _receiver_outcome(connection, of)
    if of.outcome is DeliveryOutcome.COMPLAINED:
        return _complaints(connection, what, now, after, limit)
    before, before_id = decode_cursor(after, tuple[datetime, int], (now + _LATEST, LAST_ID))
    rows = outcome_page(connection, what, before=before, before_id=before_id, limit=limit + 1)
    return to_page(rows, limit, lambda row: (row.at, row.id))


def _receiver_outcome(connection: sa.Connection, of: OutcomesOf) -> ReceiverOutcome:
    sender_id = _sender_id(_senders(connection), of.sender)
    return ReceiverOutcome(sender_id, of.provider, of.outcome.value, of.since)


def _complaints(
    connection: sa.Connection, what: ReceiverOutcome, now: datetime, after: str | None, limit: int
) -> Page[OutcomeRow]:
    before, digest = decode_cursor(after, tuple[datetime, str], (now + _LATEST, ""))
    found: list[OutcomeRow] = []
    following: str | None = None
    for _ in range(GROUPED // _CHUNK):
        # Complaints are few: their index has no sender, and those of others are skipped.
        chunk = complaint_page(connection, since=what.since, before=before, before_digest=digest, limit=_CHUNK)
        mine = [one for one in chunk if (one.sender_id, one.provider) == (what.sender_id, what.provider)]
        shown = mine[: limit - len(found)]
        found += complaint_rows(connection, shown)
        last = shown[-1] if len(mine) > len(shown) and shown else chunk[-1] if chunk else None
        ended = len(chunk) < _CHUNK and len(mine) == len(shown)
        if last is None or ended:
            return Page(rows=found)
        before, digest = last.received_at, last.digest
        following = encode_cursor((before, digest))
        if len(found) >= limit:
            break
    return Page(rows=found, next=following)


class ReplyGroup(Struct, frozen=True, kw_only=True):
    """Outcomes with the same reply. ``text``: the reply without what differs between messages. ``key``: names it.

    ``rule``: the cause by which the reply was classified. ``recipients``: different addresses among the events.
    """

    key: str
    rule: str | None
    reply_code: int | None
    enhanced_code: str | None
    text: str
    events: int
    recipients: int
    newest: OutcomeRow


class ReplyGroups(Struct, frozen=True, kw_only=True):
    """The replies of one sender's mail at one provider. If ``read`` is less than ``events``, only the newest count."""

    events: int
    read: int
    groups: Sequence[ReplyGroup]


def reply_groups(connection: sa.Connection, of: OutcomesOf, now: datetime) -> ReplyGroups:
    """Return the replies of one number of `receivers`, the most frequent first.

    Args:
        connection: A connection in a transaction.
        of: Which messages, such as the deferred ones; not complaints.
        now: The time.

    Returns:
        The replies of the newest `GROUPED` events.

    Raises:
        StateError: No campaign has this sender.
    """
    what = _receiver_outcome(connection, of)
    rows = newest_replies(connection, what, before=now + _LATEST, limit=GROUPED)
    groups: defaultdict[ReplyKey, list[ReplyRow]] = defaultdict(list)
    for row in rows:
        groups[reply_key(row)].append(row)
    newest = {row.id: row for row in outcomes_by_ids(connection, [members[0].id for members in groups.values()])}
    found = [
        ReplyGroup(
            key=encode_cursor(key),
            rule=key.rule,
            reply_code=key.reply_code,
            enhanced_code=key.enhanced_code,
            text=key.text,
            events=len(members),
            recipients=len({row.address for row in members}),
            newest=newest[members[0].id],
        )
        for key, members in groups.items()
    ]
    return ReplyGroups(
        events=len(rows) if len(rows) < GROUPED else max(_total(connection, what), len(rows)),
        read=len(rows),
        groups=sorted(found, key=lambda group: (-group.events, group.key)),
    )


def _total(connection: sa.Connection, what: ReceiverOutcome) -> int:
    return traffic_of_receiver(
        connection, what.since, sender_id=what.sender_id, provider=what.provider, outcome=what.outcome
    )


def group_events(
    connection: sa.Connection,
    of: OutcomesOf,
    key: str,
    now: datetime,
    *,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[OutcomeRow]:
    """Return the messages of one group of `reply_groups`, the newest first.

    Args:
        connection: A connection in a transaction.
        of: Which messages, as of the groups.
        key: The key of the group.
        now: The time.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page. It may have fewer rows than ``limit`` and be followed by another.

    Raises:
        StateError: No campaign has this sender.
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    what = _receiver_outcome(connection, of)
    before, before_id = decode_cursor(after, tuple[datetime, int], (now + _LATEST, LAST_ID))
    found: list[OutcomeRow] = []
    for _ in range(GROUPED // _CHUNK):
        chunk = outcome_page(connection, what, before=before, before_id=before_id, limit=_CHUNK)
        for row in chunk:
            before, before_id = row.at, row.id
            if encode_cursor(reply_key(row)) == key:
                found.append(row)
                if len(found) == limit:
                    return Page(rows=found, next=encode_cursor((before, before_id)))
        if len(chunk) < _CHUNK:
            return Page(rows=found)
    return Page(rows=found, next=encode_cursor((before, before_id)))
