"""Reads the messages of a campaign, a page at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from postroad.errors import unknown_name
from postroad.store.bulk import id_rows
from postroad.store.campaign import find_campaign, steps_of
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from postroad.store.touch_page import touch_pages
from postroad.store.types import UtcDateTime


class MessageRow(NamedTuple):
    """One message of a campaign. ``at``: when it ended; None: it has not."""

    id: int
    address: str
    step: str
    state: TouchState
    due_at: datetime
    at: datetime | None
    reply: str | None


def messages_of(
    engine: sa.Engine, campaign: str, *, step: str | None = None, states: Collection[TouchState] = ()
) -> Iterator[list[MessageRow]]:
    """Yield the messages of a campaign, a page at a time. Each page has its own transaction.

    Args:
        engine: The ledger's database.
        campaign: Name of the campaign.
        step: Only of this email step. None: of all.
        states: Only in these states. Empty: in all.

    Yields:
        The pages.

    Raises:
        StateError: There is no such campaign or step.
    """
    with read(engine) as connection:
        row = find_campaign(connection, campaign)
        names = {one.id: one.name for one in steps_of(connection, row.id or 0) if one.kind == "email"}
    if step is not None and step not in names.values():
        error = unknown_name("email step", step, names.values(), listed_by=f"postroad campaign status {campaign}")
        raise error
    step_id = next((id_ for id_, name in names.items() if name == step), None)
    for page in touch_pages(engine, row.id or 0, step_id=step_id):
        ids = [touch.id for touch in page if not states or touch.state in states]
        if ids:
            with read(engine) as connection:
                yield _messages(connection, ids, names)


def _messages(connection: sa.Connection, ids: list[int], names: dict[int | None, str]) -> list[MessageRow]:
    item, parameters = id_rows(connection, ids)
    statement = sa.text(
        "SELECT touch.id, recipient.address, touch.step_id, touch.state, touch.due_at, touch.settled_at, touch.reply "
        f"FROM {item} CROSS JOIN touch CROSS JOIN recipient WHERE touch.id = batch.id "
        "AND recipient.id = touch.recipient_id ORDER BY touch.id"
    ).columns(
        sa.column("id", sa.Integer()),
        sa.column("address", sa.Text()),
        sa.column("step_id", sa.Integer()),
        sa.column("state", sa.Text()),
        sa.column("due_at", UtcDateTime()),
        sa.column("settled_at", UtcDateTime()),
        sa.column("reply", sa.Text()),
    )
    return [
        MessageRow(row.id, row.address, names[row.step_id], TouchState(row.state), *row[4:])
        for row in connection.execute(statement, parameters)
    ]
