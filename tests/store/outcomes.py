"""Outcomes of touches, recorded as the recorder does."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from postroad.delivery.recorder import record
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.queue import Event, EventKind
from postroad.settings import BounceSettings
from postroad.store.ledger import TouchState
from postroad.store.mail_domain import KnownDomain, save_domains
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

_KINDS = {
    TouchState.ACCEPTED: EventKind.DONE,
    TouchState.DEFERRED: EventKind.DEFER,
    TouchState.BOUNCED: EventKind.DEAD,
    TouchState.DEAD: EventKind.DEAD,
    TouchState.UNKNOWN: EventKind.UNCERTAIN,
}


def outcome_event(touch: int, state: TouchState, at: datetime, *, token: int = 1, **result: object) -> Event:
    """Return the event of the queue that reports what became of a claim of a touch."""
    kind = EventKind.LATE if state is TouchState.ACCEPTED and token < 0 else _KINDS[state]
    note = DeliveryResult(state=state, **{"reply_code": 250, "reply": "ok", **result})  # type: ignore[arg-type]
    return Event(
        entry=f"{touch}-{token}",
        id=str(touch),
        token=abs(token),
        kind=kind,
        at_ms=int(at.timestamp() * 1000),
        attempt=1,
        claim=1,
        next_ms=0,
        cause="",
        error="",
        note=encode_result(note),
    )


def record_outcome(connection: sa.Connection, touch: int, state: TouchState, at: datetime, **result: object) -> None:
    record(connection, [outcome_event(touch, state, at, **result)], at, BounceSettings())  # type: ignore[arg-type]


def add_provider(connection: sa.Connection, domain: str, provider: str) -> None:
    save_domains(connection, [KnownDomain(domain, provider, domain, NOW)])


def add_sent_touches(connection: sa.Connection, domain: str, number: int) -> list[int]:
    """Add a running campaign of a sender of its own with touches on the wire, to addresses of a domain."""
    campaign, (step,) = add_campaign(connection)
    return [
        add_touch(
            connection,
            campaign,
            step,
            TouchState.SENDING,
            recipient_id=add_recipient(connection, f"r{campaign}-{n}@{domain}"),
            claim=1,
        )
        for n in range(number)
    ]
