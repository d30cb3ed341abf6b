"""Changes the steps of a running campaign, where no recipient is hurt, and keeps the versions before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from postroad.campaign.running_change import HurtError, StepChanges, find_changes, people_of_emails, people_of_journey
from postroad.campaign.step_rows import StepContent
from postroad.errors import StateError
from postroad.store.campaign import (
    Campaign,
    CampaignState,
    Step,
    StepKind,
    StepVersion,
    find_campaign,
    set_extended,
    steps_of,
)
from postroad.store.engine import read, write
from postroad.store.enrolment import enrolments_by_step
from postroad.store.stored_file import save_files
from postroad.store.touch_count import counts_by_step
from postroad.store.touch_page import touch_page
from postroad.store.touches.planning import extend_touches

LOCK_WITHIN = "10s"
"""Longest time that a change waits for the transactions that admit messages."""


def change_steps(
    connection: sa.Connection, campaign: Campaign, wanted: Sequence[StepContent], now: datetime, *, where: str
) -> None:
    """Change the steps of a launched campaign to those of its file.

    Args:
        connection: A connection in a transaction that writes, in which the campaign is locked.
        campaign: The campaign.
        wanted: The steps of the file.
        now: The time.
        where: The file, for errors.

    Raises:
        StateError: The campaign has ended or is being launched, or a change would hurt people.
    """
    assert campaign.id is not None  # noqa: S101  (read from its table)
    steps = steps_of(connection, campaign.id)
    if [(step.name, step.kind, step.settings) for step in steps] == [(s.name, s.kind, s.settings) for s in wanted]:
        return
    if campaign.state not in (CampaignState.RUNNING, CampaignState.PAUSED):
        state = "is being launched" if campaign.freezing_at is not None else f"is {campaign.state}"
        raise StateError(
            f"campaign {campaign.name} was launched and {state}, and its steps cannot change",
            where=where,
            remedy="Give the changed campaign another name, or revert the change.",
        )
    if connection.dialect.name == "postgresql":
        # Waits for admissions in progress: each of them reads this table. A later one sees the new version.
        connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_WITHIN}'"))
        connection.execute(sa.text("LOCK TABLE step IN ACCESS EXCLUSIVE MODE"))
    counts = counts_by_step(connection, campaign.id)
    if campaign.journey is None:
        people = people_of_emails(steps, counts)
    else:
        people = people_of_journey(steps, enrolments_by_step(connection, campaign.id), counts)
    try:
        changes = find_changes(steps, wanted, people)
    except HurtError as error:
        remedy = "Revert the change, or give the changed campaign another name."
        raise StateError(f"campaign {campaign.name} was launched, and {error}", where=where, remedy=remedy) from None
    for new in wanted:
        save_files(connection, new.files)
    _save_changes(connection, steps, changes, now)
    _add_steps(connection, campaign.id, steps, changes.added)
    campaign.revision += 1
    if campaign.journey is None and changes.added:
        campaign.extended = _extended(campaign, steps, now)


def _save_changes(connection: sa.Connection, steps: Sequence[Step], changes: StepChanges, now: datetime) -> None:
    for step in steps:
        settings = changes.settings.get(step.id or 0)
        if settings is None:
            continue
        values: dict[str, Any] = {"settings": settings}
        if step.id in changes.content:
            old = {"step_id": step.id, "version": step.version, "settings": step.settings, "replaced_at": now}
            connection.execute(sa.insert(StepVersion).values(**old))
            values["version"] = step.version + 1
        connection.execute(sa.update(Step).where(col(Step.id) == step.id).values(**values))


def _add_steps(
    connection: sa.Connection, campaign_id: int, steps: Sequence[Step], added: Sequence[StepContent]
) -> None:
    session = Session(connection)
    for position, step in enumerate(added, start=len(steps) + 1):
        session.add(
            Step(campaign_id=campaign_id, position=position, name=step.name, kind=step.kind, settings=step.settings)
        )
    session.flush()


def _extended(campaign: Campaign, steps: Sequence[Step], now: datetime) -> dict[str, Any]:
    """Return the emails that are to get a follow-up: those of earlier changes, and the last email until now."""
    last = next(step for step in reversed(steps) if step.kind is StepKind.EMAIL)
    pending = (campaign.extended or {}).get("emails", [])
    return {"emails": [*pending, {"step_id": last.id, "since": now.isoformat(), "after": 0}]}


def extend_follow_ups(engine: sa.Engine, name: str) -> None:
    """Let the steps that were added follow the touches of the email that was the last one, a page at a time.

    Who got that email before the steps were added gets no other one. The next call continues.

    Args:
        engine: The ledger.
        name: Name of the campaign.
    """
    while True:
        with read(engine) as connection:
            campaign = find_campaign(connection, name)
            pending = (campaign.extended or {}).get("emails", [])
            if not pending:
                return
            email, campaign_id = pending[0], campaign.id or 0
            page = touch_page(connection, campaign_id, email["step_id"], after=email["after"])
        with write(engine) as connection:
            if find_campaign(connection, name, for_update=True).extended != campaign.extended:
                continue  # Another pass was here.
            extend_touches(connection, [touch.id for touch in page], datetime.fromisoformat(email["since"]))
            rest = [{**email, "after": page[-1].recipient_id}, *pending[1:]] if page else pending[1:]
            set_extended(connection, campaign_id, {"emails": rest} if rest else None)
