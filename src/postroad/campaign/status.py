"""How a campaign stands: its touches by state, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, col, select

from postroad.campaign.sequence import email_sequence
from postroad.store.campaign import Campaign, CampaignState, find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.ledger import LIVE, TouchState
from postroad.store.planning import any_follow_up
from postroad.store.touch_count import counts_by_step
from postroad.store.types import UtcDateTime


@dataclass(frozen=True, kw_only=True)
class StepSummary:
    """Touches of one email step, by state: every state is there, and they sum to ``touches``."""

    name: str
    counts: dict[TouchState, int]

    @property
    def touches(self) -> int:
        return sum(self.counts.values())

    @property
    def live(self) -> int:
        return sum(self.counts[state] for state in LIVE)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a campaign stands. ``audience`` is the frozen one: the touches of the first step.

    ``paused_by`` says in words who paused it, ``launch_error`` why its last launch failed.
    """

    campaign: str
    state: CampaignState
    audience: int
    steps: tuple[StepSummary, ...]
    launched_at: datetime | None
    next_due_at: datetime | None
    paused_at: datetime | None
    paused_by: str | None
    launch_failed_at: datetime | None
    launch_error: str | None

    @property
    def settled(self) -> bool:
        """Nothing is on the queue or on the wire: what is left is due later, or was deferred by its receiver."""
        return not any(step.counts[state] for step in self.steps for state in (TouchState.QUEUED, TouchState.SENDING))

    @property
    def counts(self) -> dict[TouchState, int]:
        """All steps together."""
        return {state: sum(step.counts[state] for step in self.steps) for state in TouchState}


def summary(engine: sa.Engine, name: str) -> Summary:
    """How a campaign stands. Raises StateError when there is none of that name."""
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        return _summary(connection, campaign)


def _summary(connection: sa.Connection, campaign: Campaign) -> Summary:
    assert campaign.id is not None  # noqa: S101  (read from its table)
    counts = counts_by_step(connection, campaign.id)
    steps = tuple(
        StepSummary(
            name=email.name,
            counts={state: counts.get(email.step_id, {}).get(state, 0) for state in TouchState},
        )
        for email in email_sequence(steps_of(connection, campaign.id))
    )
    next_due_at = connection.execute(
        # Not min(): PostgreSQL, which knows little of a new campaign, would read all that are planned.
        sa.text(
            "SELECT due_at FROM touch WHERE campaign_id = :id AND state = 'planned' ORDER BY due_at, id LIMIT 1"
        ).columns(sa.column("due_at", UtcDateTime())),
        {"id": campaign.id},
    ).scalar()
    return Summary(
        campaign=campaign.name,
        state=campaign.state,
        audience=steps[0].touches if steps else 0,
        steps=steps,
        launched_at=campaign.launched_at,
        next_due_at=next_due_at,
        paused_at=campaign.paused_at,
        paused_by=campaign.paused_by,
        launch_failed_at=campaign.launch_failed_at,
        launch_error=campaign.launch_error,
    )


def campaigns_in(engine: sa.Engine, *states: CampaignState) -> list[str]:
    """Return the names of the campaigns in these states; of all, where none is named."""
    with read(engine) as connection:
        statement = select(Campaign.name).order_by(Campaign.name)
        if states:
            statement = statement.where(col(Campaign.state).in_(states))
        return list(Session(connection).exec(statement))


def running_campaigns(engine: sa.Engine) -> list[str]:
    """Return the names of the campaigns that send."""
    return campaigns_in(engine, CampaignState.RUNNING)


def campaigns_stopped_since(engine: sa.Engine, since: datetime) -> list[str]:
    """Return the names of the campaigns that finished, were cancelled or were paused since then."""
    statement = (
        select(Campaign.name)
        .where(
            sa.or_(
                sa.and_(
                    col(Campaign.state).in_([CampaignState.FINISHED, CampaignState.CANCELLED]),
                    col(Campaign.finished_at) >= since,
                ),
                sa.and_(col(Campaign.state) == CampaignState.PAUSED, col(Campaign.paused_at) >= since),
            )
        )
        .order_by(Campaign.name)
    )
    with read(engine) as connection:
        return list(Session(connection).exec(statement))


def finish_if_done(engine: sa.Engine, name: str, now: datetime) -> bool:
    """Set a running campaign finished once every touch of every step has ended, and no next one is to be planned.

    Call after `plan.advance`. Touches that are ``unknown`` have ended: they are shown, and wait for a person.
    """
    with read(engine) as connection:
        if not _is_done(connection, find_campaign(connection, name)):
            return False
    with write(engine) as connection:
        campaign = find_campaign(connection, name, for_update=True)
        if not _is_done(connection, campaign):
            return False
        values = {"state": CampaignState.FINISHED, "finished_at": now}
        connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign.id).values(**values))
        return True


def _is_done(connection: sa.Connection, campaign: Campaign) -> bool:
    assert campaign.id is not None  # noqa: S101  (read from its table)
    if campaign.state is not CampaignState.RUNNING or campaign.launched_at is None:
        return False
    live = any(step.live for step in _summary(connection, campaign).steps)
    return not live and not any_follow_up(connection, campaign.id)
