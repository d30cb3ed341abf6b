"""What slows senders down: changes of the shaping with the replies that caused them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from msgspec import Struct

from postroad.gates.name import GateKind, GateName
from postroad.read_model.page import DEFAULT_LIMIT, Page, checked_limit, decode_cursor, to_page
from postroad.shaping.decide import is_expired
from postroad.shaping.describe import describe_limits
from postroad.store.shaping import ShapingChange, newest_changes, open_changes


class ShapingEntry(Struct, frozen=True, kw_only=True):
    """One change of the limits of a sender.

    ``sender``: From address. ``names``: names of the senders with this address whose outcomes the ledger has.
    ``provider``: None: everywhere. ``receiver``: the provider, or a site or domain of it. ``sets``: the limits that it
    set. ``suspended``: whether it lets nothing through. ``is_open``: whether it limits now.
    """

    id: int
    gate: str
    rule: str
    sender: str
    names: Sequence[str]
    provider: str | None
    receiver: str
    reply: str
    sets: str
    suspended: bool
    at: datetime
    ends_at: datetime | None
    restored_at: datetime | None
    restored_by: str | None
    is_open: bool


def open_entries(connection: sa.Connection, now: datetime, *, provider: str | None = None) -> list[ShapingEntry]:
    """Return the changes that limit now, the newest first.

    Args:
        connection: A connection in a transaction.
        now: The time.
        provider: Only changes at this mailbox provider, or everywhere; None: at all.

    Returns:
        The changes.
    """
    found = [
        change
        for change in open_changes(connection)
        if not is_expired(change, now) and (provider is None or change.provider in (None, provider))
    ]
    return _entries(connection, found[::-1], now)


def past_entries(
    connection: sa.Connection,
    now: datetime,
    *,
    sender: str | None = None,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[ShapingEntry]:
    """Return all changes, also those that are over, the newest first.

    Args:
        connection: A connection in a transaction.
        now: The time.
        sender: Only changes of this From address; None: of all.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    before = decode_cursor(after, int, 0) or None
    rows = newest_changes(connection, sender, limit + 1, before=before)
    return to_page(_entries(connection, rows, now), limit, lambda entry: entry.id)


def _entries(connection: sa.Connection, changes: Sequence[ShapingChange], now: datetime) -> list[ShapingEntry]:
    names: dict[str, list[str]] = {}
    for row in connection.execute(sa.text("SELECT name, address FROM sender ORDER BY name")):
        names.setdefault(row.address, []).append(row.name)
    return [
        ShapingEntry(
            id=change.id or 0,
            gate=change.gate,
            rule=change.rule,
            sender=change.sender,
            names=names.get(change.sender, ()),
            provider=change.provider,
            receiver=_receiver(change),
            reply=change.reply,
            sets=describe_limits(change),
            suspended=change.suspended,
            at=change.at,
            ends_at=change.ends_at,
            restored_at=change.restored_at,
            restored_by=change.restored_by,
            is_open=change.restored_at is None and not is_expired(change, now),
        )
        for change in changes
    ]


def _receiver(change: ShapingChange) -> str:
    name = GateName.parse(change.gate)
    if name is not None and name.kind is GateKind.PROVIDER and name.receiver is not None:
        return str(name.receiver)
    return change.provider or ""
