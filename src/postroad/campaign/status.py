"""Reports the state of campaigns: touches by step and state. Finishes a campaign when all touches have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, col, select

from postroad.campaign.entry import CampaignEntry, EntryKind, is_open
from postroad.store.approval import Approval, last_approval
from postroad.store.bulk import found_sql
from postroad.store.campaign import Campaign, CampaignState, Step, StepKind, find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.enrolment import EnrolmentState, ExitReason, StepEnrolments, any_active, enrolments_by_step
from postroad.store.enrolments.pending import any_failed
from postroad.store.ledger import LIVE, TouchState
from postroad.store.planning import any_follow_up
from postroad.store.rollout import RolloutShare, shares_of
from postroad.store.touch_count import counts_by_step
from postroad.store.touches.sending import reopen_campaigns
from postroad.store.types import UtcDateTime
from postroad.store.variant import counts_by_variant, decides_at
from postroad.store.variant_split import variant_names


@dataclass(frozen=True, kw_only=True)
class StepSummary:
    """Touches of one email step, by state. Every state has a count; the sum is ``touches``.

    ``recalled_at``: when it was recalled. ``version``: it was changed so often after the launch, plus one.
    ``variants``: the same of each variant, in their order. Touches that have none yet are missing there.
    """

    name: str
    counts: dict[TouchState, int]
    recalled_at: datetime | None = None
    version: int = 1
    variants: dict[str, dict[TouchState, int]] = field(default_factory=dict)

    @property
    def touches(self) -> int:
        return sum(self.counts.values())

    @property
    def live(self) -> int:
        return sum(self.counts[state] for state in LIVE)


@dataclass(frozen=True, kw_only=True)
class PlaceSummary:
    """Enrolments at one step of any kind."""

    step: str
    kind: StepKind
    enrolments: StepEnrolments


@dataclass(frozen=True, kw_only=True)
class JourneySummary:
    """Enrolments of a journey: enrolled = active + completed + exited, at every step and for all steps.

    ``entry``: how recipients enter: launch, joined, event, date or api. ``open``: whether more may enter.
    """

    entry: str
    open: bool
    places: tuple[PlaceSummary, ...]

    @property
    def by_request(self) -> bool:
        """Whether a program requests each message, and no recipient is enrolled."""
        return self.entry == EntryKind.API

    @property
    def enrolled(self) -> int:
        return sum(place.enrolments.total for place in self.places)

    @property
    def active(self) -> int:
        return sum(place.enrolments.active for place in self.places)

    @property
    def completed(self) -> int:
        return sum(place.enrolments.completed for place in self.places)

    @property
    def exited(self) -> dict[ExitReason, int]:
        """Exited enrolments by reason, without reasons that no enrolment has."""
        counts = {reason: sum(place.enrolments.exited[reason] for place in self.places) for reason in ExitReason}
        return {reason: n for reason, n in counts.items() if n}

    @property
    def goal(self) -> int:
        """How many reached the goal."""
        return sum(place.enrolments.goal for place in self.places)


@dataclass(frozen=True, kw_only=True)
class CampaignSummary:
    """State of a campaign.

    ``audience`` is the frozen audience: the touches of the first step, or the enrolments of a journey. ``journey``:
    None for a campaign without enrolments. ``approval``: the pending request for its launch. ``rollout``:
    its shares, in order. ``paused_by`` describes
    who paused it, ``launch_error`` why its last launch failed.
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
    journey: JourneySummary | None = None
    approval: Approval | None = None
    rollout: tuple[RolloutShare, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether no touch is queued or being sent. Remaining touches are due later, or were deferred."""
        return not any(step.counts[state] for step in self.steps for state in (TouchState.QUEUED, TouchState.SENDING))

    @property
    def counts(self) -> dict[TouchState, int]:
        """Touches of all steps, by state."""
        return {state: sum(step.counts[state] for step in self.steps) for state in TouchState}


def summary(engine: sa.Engine, name: str) -> CampaignSummary:
    """Return the state of a campaign. Raise StateError if it does not exist."""
    with read(engine) as connection:
        return campaign_summary(connection, find_campaign(connection, name))


def campaign_summary(connection: sa.Connection, campaign: Campaign) -> CampaignSummary:
    """Return the state of a campaign that was read in this transaction."""
    assert campaign.id is not None  # noqa: S101  (read from its table)
    counts = counts_by_step(connection, campaign.id)
    rows = steps_of(connection, campaign.id)
    of_variants = counts_by_variant(connection, campaign.id) if any(variant_names(row.settings) for row in rows) else {}
    steps = tuple(
        StepSummary(
            name=step.name,
            counts={state: counts.get(step.id or 0, {}).get(state, 0) for state in TouchState},
            recalled_at=step.recalled_at,
            version=step.version,
            variants={
                name: {state: of_variants.get(step.id or 0, {}).get(name, Counter())[state] for state in TouchState}
                for name in variant_names(step.settings)
            },
        )
        for step in rows
        if step.kind is StepKind.EMAIL
    )
    journey = _journey_summary(connection, campaign, rows) if campaign.journey is not None else None
    return CampaignSummary(
        campaign=campaign.name,
        state=campaign.state,
        audience=_audience(journey, steps),
        steps=steps,
        launched_at=campaign.launched_at,
        next_due_at=_next_due_at(connection, campaign.id, steps),
        paused_at=campaign.paused_at,
        paused_by=campaign.paused_by,
        launch_failed_at=campaign.launch_failed_at,
        launch_error=campaign.launch_error,
        journey=journey,
        approval=_pending_approval(connection, campaign),
        rollout=tuple(shares_of(connection, campaign.id)) if campaign.rollout is not None else (),
    )


def _audience(journey: JourneySummary | None, steps: Sequence[StepSummary]) -> int:
    if journey is not None and not journey.by_request:
        return journey.enrolled
    return steps[0].touches if steps else 0


def _pending_approval(connection: sa.Connection, campaign: Campaign) -> Approval | None:
    if campaign.state is not CampaignState.DRAFT:
        return None
    last = last_approval(connection, campaign.id or 0)
    return last if last is not None and last.pending else None


def _next_due_at(connection: sa.Connection, campaign_id: int, steps: Sequence[StepSummary]) -> datetime | None:
    """Return when the next planned touch is due, a winner is decided at the latest, or the next wait is over."""
    # Not min(): without statistics of a new campaign, PostgreSQL would read all planned touches.
    pending = (
        "touch WHERE campaign_id = :id AND state = 'planned'",
        f"enrolment WHERE campaign_id = :id AND state = '{EnrolmentState.ACTIVE}' AND due_at IS NOT NULL",
    )
    found = []
    for rows in pending:
        statement = sa.text(f"SELECT due_at FROM {rows} ORDER BY due_at, id LIMIT 1")
        due_at = connection.execute(statement.columns(sa.column("due_at", UtcDateTime())), {"id": campaign_id}).scalar()
        found += [due_at] if due_at is not None else []
    awaits = any(step.counts[TouchState.AWAITING] for step in steps)
    decision = decides_at(connection, campaign_id) if awaits else None
    return min([*found, decision] if decision is not None else found, default=None)


def _journey_summary(connection: sa.Connection, campaign: Campaign, steps: Sequence[Step]) -> JourneySummary:
    found = enrolments_by_step(connection, campaign.id or 0)
    return JourneySummary(
        entry=CampaignEntry.of(campaign).kind.value,
        open=is_open(campaign) and campaign.state in (CampaignState.RUNNING, CampaignState.PAUSED),
        places=tuple(
            PlaceSummary(step=step.name, kind=step.kind, enrolments=found.get(step.id or 0, StepEnrolments()))
            for step in steps
        ),
    )


def campaigns_in(engine: sa.Engine, *states: CampaignState) -> list[str]:
    """Return the names of the campaigns in these states, or of all campaigns if no state is given."""
    with read(engine) as connection:
        statement = select(Campaign.name).order_by(Campaign.name)
        if states:
            statement = statement.where(col(Campaign.state).in_(states))
        return list(Session(connection).exec(statement))


def reopen_late(engine: sa.Engine) -> list[str]:
    """Let finished campaigns run again in which a message was accepted late, and a step follows.

    A late event of the queue, a returned message or a report may say so after the campaign finished. The steps that
    follow are then taken, and the campaign finishes again.

    Args:
        engine: The ledger.

    Returns:
        The names of the campaigns.
    """
    with read(engine) as connection:
        found = list(connection.execute(_ACCEPTED_LATE).scalars())
    if not found:
        return []
    with write(engine) as connection:
        locked = sa.select(col(Campaign.id)).where(col(Campaign.id).in_(found)).order_by(col(Campaign.id))
        connection.execute(locked.with_for_update())
        late = sorted(connection.execute(_ACCEPTED_LATE).scalars())
        reopen_campaigns(connection, late)
        names = select(Campaign.name).where(col(Campaign.id).in_(late)).order_by(Campaign.name)
        return list(Session(connection).exec(names))


_ACCEPTED_LATE = sa.text(
    "SELECT campaign.id FROM campaign WHERE campaign.state = 'finished' AND "
    + found_sql(
        "touch WHERE touch.campaign_id = campaign.id AND touch.follow_up AND touch.state IN ('accepted', 'skipped')"
    )
)


def running_campaigns(engine: sa.Engine) -> list[str]:
    """Return the names of the running campaigns, with those that run again: see `reopen_late`."""
    reopen_late(engine)
    return campaigns_in(engine, CampaignState.RUNNING)


def campaigns_stopped_since(engine: sa.Engine, since: datetime) -> list[str]:
    """Return the names of the campaigns that were finished, cancelled or paused since then."""
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
    """Set a running campaign to finished if every touch and enrolment has ended and no follow-up is left to plan.

    Call it after `plan.advance`. Touches with the state ``unknown`` count as ended: an operator resolves them.

    Args:
        engine: The ledger.
        name: Name of the campaign.
        now: The time.

    Returns:
        Whether the campaign was set to finished.
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
    if is_open(campaign) or campaign.extended is not None:
        return False
    live = any(step.live for step in campaign_summary(connection, campaign).steps)
    if live or any_follow_up(connection, campaign.id):
        return False
    return campaign.journey is None or not (any_active(connection, campaign.id) or any_failed(connection, campaign.id))
