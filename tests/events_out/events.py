"""Delivery events for tests, as the recorder and others insert them."""

from __future__ import annotations

from itertools import count

import sqlalchemy as sa

from postroad.store.ledger import TouchState
from postroad.store.touches.results import TouchResult, insert_events
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

_numbers = count(1)
AT_MS = int(NOW.timestamp() * 1000)


def add_sent_touch(connection: sa.Connection, address: str | None = None) -> int:
    """Add an accepted touch of a campaign of its own. Returns its id."""
    campaign, [step] = add_campaign(connection)
    recipient = add_recipient(connection, address)
    return add_touch(connection, campaign, step, TouchState.ACCEPTED, recipient_id=recipient, settled_at=NOW)


def result(touch: int, state: TouchState = TouchState.ACCEPTED, **values: object) -> TouchResult:
    """Return a result of one attempt of a touch."""
    fields = {
        "uid": f"test:{next(_numbers)}",
        "touch_id": touch,
        "state": state,
        "claim": 0,
        "at_ms": AT_MS,
        "attempt": 1,
        "next_ms": None,
        "reply_code": 250,
        "enhanced_code": "2.0.0",
        "reply": "250 2.0.0 OK",
        "cause": None,
        "blame": None,
        "words": None,
    }
    return TouchResult(**{**fields, **values})  # type: ignore[arg-type]


def add_events(connection: sa.Connection, touch: int, number: int, **values: object) -> None:
    """Insert events of a touch."""
    insert_events(connection, [result(touch, **values) for _ in range(number)])  # type: ignore[arg-type]


def ids_of(engine: sa.Engine) -> list[int]:
    """Return the ids of all events, in order."""
    with engine.connect() as connection:
        return list(connection.execute(sa.text("SELECT id FROM delivery_event ORDER BY id")).scalars())
