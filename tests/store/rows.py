"""Rows for tests of the ledger: campaigns, recipients and touches, put straight into their tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, SQLModel

from postroad.store.campaign import Campaign, CampaignState, Sender, Step, StepKind
from postroad.store.ledger import Touch, TouchState
from postroad.store.recipient import Audience, AudienceImport, AudienceMember, Recipient
from postroad.store.suppression import SuppressionReason, suppress

NOW = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)
_numbers = count(1)


def insert_row(connection: sa.Connection, row: SQLModel) -> int:
    """Insert a row. Returns its id."""
    session = Session(connection)
    session.add(row)
    session.flush()
    id_ = row.id  # type: ignore[attr-defined]
    assert isinstance(id_, int)
    session.expunge_all()
    return id_


def add_audience(connection: sa.Connection, recipients: Sequence[int] = (), *, name: str | None = None) -> int:
    audience = insert_row(connection, Audience(name=name or f"audience-{next(_numbers)}", created_at=NOW))
    import_ = AudienceImport(
        audience_id=audience, path="x.csv", sha256="0" * 64, rows_total=0, started_at=NOW, finished_at=NOW
    )
    import_id = insert_row(connection, import_)
    for recipient in recipients:
        member = {"audience_id": audience, "recipient_id": recipient, "import_id": import_id}
        connection.execute(sa.insert(AudienceMember).values(**member))
    return audience


def add_campaign(
    connection: sa.Connection,
    *,
    name: str | None = None,
    state: CampaignState = CampaignState.RUNNING,
    audience_id: int | None = None,
    time_zone: str = "UTC",
    steps: Sequence[dict[str, Any]] = ({},),
    launched_at: datetime | None = None,
) -> tuple[int, list[int]]:
    """Return the ids of a campaign and of its steps: a step with ``wait_ms`` waits, any other is an email."""
    sender = Sender(
        name=f"sender-{next(_numbers)}",
        address="news@example.com",
        display_name="News",
        postal_address="1 High Street, Springfield",
        route="relay",
    )
    campaign = Campaign(
        name=name or f"campaign-{next(_numbers)}",
        state=state,
        audience_id=audience_id or add_audience(connection),
        sender_id=insert_row(connection, sender),
        time_zone=time_zone,
        created_at=NOW,
        launched_at=launched_at,
    )
    campaign_id = insert_row(connection, campaign)
    ids = []
    email = {"subject": "Hello", "text": "Hello. {{ unsubscribe_url }} {{ postal_address }}", "html": None, "at": None}
    for position, given in enumerate(steps, start=1):
        kind = StepKind.WAIT if "wait_ms" in given else StepKind.EMAIL
        settings = {**email, **given} if kind is StepKind.EMAIL else given
        step = Step(campaign_id=campaign_id, position=position, name=f"step-{position}", kind=kind, settings=settings)
        ids.append(insert_row(connection, step))
    return campaign_id, ids


def add_recipient(
    connection: sa.Connection, address: str | None = None, *, time_zone: str | None = None, **attributes: str
) -> int:
    address = address or f"r{next(_numbers)}@example.com"
    domain = address.rpartition("@")[2]
    row = Recipient(address=address, domain=domain, time_zone=time_zone, attributes=attributes, created_at=NOW)
    return insert_row(connection, row)


def add_touch(
    connection: sa.Connection,
    campaign_id: int,
    step_id: int,
    state: TouchState,
    *,
    recipient_id: int | None = None,
    claim: int = 0,
    due_at: datetime = NOW,
    settled_at: datetime | None = None,
) -> int:
    touch = Touch(
        campaign_id=campaign_id,
        step_id=step_id,
        recipient_id=recipient_id if recipient_id is not None else add_recipient(connection),
        state=state,
        claim=claim,
        due_at=due_at,
        settled_at=settled_at,
        next_at=NOW if state is TouchState.DEFERRED else None,
    )
    touch_id = insert_row(connection, touch)
    connection.execute(_FOLLOWED, {"id": touch_id})
    return touch_id


def add_newest_touch(connection: sa.Connection) -> int:
    """Add a touch of a campaign that runs, the newest of all: no retention deletes the newest."""
    campaign, [step] = add_campaign(connection)
    return add_touch(connection, campaign, step, TouchState.ACCEPTED)


_FOLLOWED = sa.text(
    "UPDATE touch SET follow_up = true WHERE id = :id AND EXISTS (SELECT 1 FROM step JOIN step AS later "
    "ON later.campaign_id = step.campaign_id AND later.position > step.position AND later.kind = 'email' "
    "WHERE step.id = touch.step_id)"
)
"""As planning marks it: another email comes after this one."""


def suppress_recipient(connection: sa.Connection, recipient_id: int) -> None:
    address = connection.execute(
        sa.text("SELECT address FROM recipient WHERE id = :id"), {"id": recipient_id}
    ).scalar_one()
    suppress(connection, [address], SuppressionReason.MANUAL, "test", NOW)


def touch_row(connection: sa.Connection, touch_id: int) -> Touch:
    session = Session(connection)
    touch = session.get_one(Touch, touch_id)
    session.expunge_all()
    return touch
