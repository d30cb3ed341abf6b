"""Makes the forecast of a campaign: when its mail leaves, what holds it, and what would help."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

import sqlalchemy as sa
from sqlmodel import Session, col, select

from postroad.app.context import AppContext
from postroad.campaign.calendar import Window
from postroad.campaign.entry import CampaignEntry
from postroad.campaign.file_trial import FileTrial
from postroad.campaign.holidays import HolidayCalendar
from postroad.campaign.journey import Journey
from postroad.campaign.rollout import Rollout
from postroad.campaign.sequence import email_sequence
from postroad.delivery.job import queue_of
from postroad.errors import PostroadError, StateError
from postroad.forecast.demand import (
    RecipientGroup,
    Router,
    enrolled_arrivals,
    first_arrivals,
    follow_up_arrivals,
    members,
    segment_members,
    utc,
    waiting_arrivals,
)
from postroad.forecast.following import JourneySequel, Sequel, read_shares
from postroad.forecast.frequency import CappedFollowing, ForecastCap
from postroad.forecast.gates import SimulatedGate, WarmupGate
from postroad.forecast.helps import find_helps
from postroad.forecast.limits import GateInputs, LimitSources, read_gates
from postroad.forecast.report import (
    CampaignForecast,
    HourForecast,
    StepForecast,
    holds_of,
    late_messages,
)
from postroad.forecast.rollout import NO_SHARES, Groups, follow_shares, shares_of_draft, shares_of_running
from postroad.forecast.simulate import Arrival, LaneKey, SimulatedRun, Simulation
from postroad.forecast.tested import OpenTest, SplitEmails, open_tests
from postroad.forecast.what_if import apply_changes
from postroad.queue import GateState
from postroad.settings.types import RateSetting
from postroad.store.campaign import Campaign, CampaignState, Sender, find_campaign, steps_of
from postroad.store.engine import read
from postroad.store.recipient import audience_name

JOURNEY_NOTE = (
    "Conditions and dates are those of now, from a sample of the audience. Exits, and people who enter later, are not "
    "predicted."
)
FILE_NOTE = (
    "The launch imports its file first. Its rows are counted, and their fields are not evaluated: at conditions and "
    "dates they go the ways of the members so far. Without members all take `else`, and have no date. Import the file "
    "for a forecast with its fields."
)
FREQUENCY_NOTE = (
    "Frequency caps hold what was sent before, and emails of this campaign under a cap of one message. What other "
    "campaigns send meanwhile does not count."
)


@dataclass(frozen=True, kw_only=True)
class ForecastRequest:
    """What to forecast. ``changes``: values of the settings to replace. ``coming``: the file that a launch imports."""

    campaign: str
    deadline: datetime | None = None
    changes: Mapping[str, str] | None = None
    coming: FileTrial | None = None


async def forecast_campaign(context: AppContext, request: ForecastRequest) -> CampaignForecast:
    """Forecast a campaign: a draft as if it was launched now, and one that is launched from what is left of it.

    Args:
        context: The open parts. If the queue cannot be reached, its own limits and pauses are missing.
        request: What to forecast.

    Returns:
        The forecast.

    Raises:
        StateError: There is no such campaign, or it has ended; or a change names no setting.
        UsageError: The value of a change is not valid.
        UnavailableError: The database is unavailable.
    """
    settings, shaping = apply_changes(context.settings, context.shaping, request.changes or {})
    now = context.clock.now()
    calendar = HolidayCalendar(settings.calendar)
    read_from = await asyncio.to_thread(_read_campaign, context.engine, request.campaign, calendar, now)
    campaign, demand = read_from.row, _Demand(read_from, settings.frequency)
    router = Router(shaping, campaign.time_zone)
    arrivals = await asyncio.to_thread(demand.arrivals, context.engine, router, now, request.coming)
    states, notes = await _states(context, campaign)
    if not any(arrival.lane.campaign for arrival in (*arrivals, *demand.withheld(router, now))):
        raise StateError(
            f"nothing of campaign {campaign.name} is to be sent: its audience is empty, or everything has left",
            remedy=f"Import the audience: `postroad audience import {read_from.audience} FILE`.",
        )
    if campaign.journey is not None:
        notes = (*notes, JOURNEY_NOTE, *((FILE_NOTE,) if request.coming is not None and request.coming.new else ()))
    notes = (*notes, *(test.note for test in read_from.tests.values()))
    if settings.frequency:
        notes = (*notes, FREQUENCY_NOTE)
    sources = LimitSources(
        engine=context.engine,
        settings=settings,
        shaping=shaping,
        states=states,
        queue=queue_of(campaign),
        clock=context.clock,
    )
    routes = {sender.address: sender.route for sender in settings.senders.values()}
    lanes = demand.lanes((*arrivals, *demand.withheld(router, now)))
    inputs = await read_gates(sources, campaign, lanes, routes)

    def simulate() -> CampaignForecast:
        every = demand.with_shares(arrivals, inputs, router, now)
        return _forecast(demand, every, inputs, request, now, (*notes, *demand.shares.notes))

    return await asyncio.to_thread(simulate)


class _Campaign(NamedTuple):
    """A campaign, the emails that follow each other, its hours, and the addresses of its senders, its own first.

    ``tests``: open tests of variants, by step. ``audience``: name of its audience.
    """

    row: Campaign
    following: Sequel | JourneySequel
    window: Window | None
    senders: Sequence[str]
    tests: Mapping[int, OpenTest]
    audience: str


def _read_campaign(engine: sa.Engine, name: str, calendar: HolidayCalendar, now: datetime) -> _Campaign:
    with read(engine) as connection:
        row = find_campaign(connection, name)
        if row.state in (CampaignState.FINISHED, CampaignState.CANCELLED):
            raise StateError(f"campaign {name} is {row.state}: nothing of it is still to be sent")
        assert row.id is not None  # noqa: S101  (read from its table)
        window = Window.from_row(row.sending_window, calendar)
        steps = steps_of(connection, row.id)
        following: Sequel | JourneySequel
        if row.journey is None:
            following = Sequel(email_sequence(steps, window), window, row.time_zone)
        else:
            journey = Journey(row, steps, calendar)
            shares = read_shares(connection, journey, row, now)
            following = JourneySequel(journey, shares, window, row.time_zone)
        ids = [row.sender_id, *(row.overflow["senders"] if row.overflow else [])]
        found = Session(connection).exec(select(Sender.id, Sender.address).where(col(Sender.id).in_(ids)))
        addresses = dict(found.all())
        tests = open_tests(connection, row.id, steps)
        audience = audience_name(connection, row.audience_id)
    return _Campaign(row, following, window, [addresses[id_] for id_ in ids], tests, audience)


class _Demand:
    """What a campaign is still to send, and the rules by which messages follow and move."""

    def __init__(self, campaign: _Campaign, caps: Mapping[str, RateSetting]) -> None:
        self.campaign, emails, self.window, self.senders, tests, _ = campaign
        self.following = SplitEmails(emails, tests)
        self._caps, self._cap = caps, ForecastCap.of(caps, self.campaign)
        self.shares = NO_SHARES

    def arrivals(self, engine: sa.Engine, router: Router, now: datetime, coming: FileTrial | None) -> list[Arrival]:
        """Read what is still to be sent, and what other campaigns have waiting at the same gates."""
        own, sender = self.campaign, self.senders[0]
        with read(engine) as connection:
            arrivals = self._others(connection, router, now)
            if own.launched_at is None:
                trial = coming or FileTrial()
                known = (
                    segment_members(engine, own, now, trial.known, self._cap)
                    if own.segment
                    else members(connection, own, self._cap, trial.before)
                )
                # Who will enter after the launch is not known.
                found = [*known, *_coming(trial)] if CampaignEntry.of(own).at_launch else []
                rollout = Rollout.of(own)
                if rollout is None:
                    return arrivals + first_arrivals(found, self.following, sender, router, now)
                first, *others = (shares := shares_of_draft(rollout, found, now)).withheld
                self.shares = shares._replace(withheld=others)
                return arrivals + first_arrivals(first, self.following, sender, router, now)
            self.shares = shares_of_running(connection, own, now, self._cap)
            arrivals += waiting_arrivals(connection, own, router, now, cap=self._cap)
            capped = CappedFollowing(self.following, self._cap)
            arrivals += follow_up_arrivals(connection, own, capped, router, sender)
            if own.journey is not None and own.id is not None:
                arrivals += enrolled_arrivals(connection, own.id, self.following, router, sender)
        return arrivals

    def withheld(self, router: Router, now: datetime) -> list[Arrival]:
        """Return the messages that a rollout withholds, as if they were let go now."""
        return [arrival for groups in self.shares.withheld for arrival in self._arrive(router, groups, now)]

    def _arrive(self, router: Router, groups: Groups, at: datetime) -> list[Arrival]:
        return first_arrivals(groups, self.following, self.senders[0], router, at)

    def with_shares(
        self, arrivals: Sequence[Arrival], inputs: GateInputs, router: Router, now: datetime
    ) -> Sequence[Arrival]:
        """Add the messages that a rollout withholds, each share after those before it."""
        if not self.shares.withheld:
            return arrivals
        first_step = self.following.first(now.timestamp(), self.campaign.time_zone)[0].step_id
        return follow_shares(
            self.shares,
            arrivals,
            first_step,
            lambda known: self.simulate(known, inputs, now),
            partial(self._arrive, router),
            now,
        )

    def _others(self, connection: sa.Connection, router: Router, now: datetime) -> list[Arrival]:
        running = select(Campaign).where(Campaign.state == CampaignState.RUNNING, Campaign.id != self.campaign.id)
        campaigns = Session(connection).exec(running).all()
        return [
            arrival
            for other in campaigns
            if not other.warmup
            for arrival in waiting_arrivals(
                connection, other, router, now, own=False, cap=ForecastCap.of(self._caps, other)
            )
        ]

    def lanes(self, arrivals: Iterable[Arrival]) -> set[LaneKey]:
        """Return every lane that a message may take: also those of the senders that take over."""
        own = {arrival.lane for arrival in arrivals}
        return own | {lane._replace(sender=sender) for lane in own if lane.campaign for sender in self.senders}

    def take_over(
        self, gates: Mapping[LaneKey, Sequence[SimulatedGate]], due: Arrival, waiting: Mapping[LaneKey, float]
    ) -> list[Arrival]:
        """Move what exceeds the caps of the campaign's sender to the other senders, as overflow does."""
        overflow = self.campaign.overflow
        if overflow is None or not due.lane.campaign or due.lane.sender != self.senders[0]:
            return [due]
        until = due.due + overflow["within_ms"] / 1000
        left, taken = due.messages, list[Arrival]()
        for place, sender in enumerate(self.senders):
            lane = due.lane._replace(sender=sender)
            warming = [gate for gate in gates[lane] if isinstance(gate, WarmupGate)]
            ahead = sum(n for other, n in waiting.items() if (other.sender, other.provider) == (sender, lane.provider))
            capacity = min((gate.capacity_until(due.due, until) - ahead for gate in warming), default=left)
            part = min(left, max(capacity, 0.0))
            if part > 0:
                taken.append(due._replace(lane=lane, messages=part))
            left -= part
            if place == 0 and not warming:
                return [due]
        if left > 0:  # No other sender can take these.
            taken.append(due._replace(messages=left))
        return taken

    def simulate(
        self, arrivals: Sequence[Arrival], inputs: GateInputs, now: datetime, factors: Mapping[str, float] | None = None
    ) -> SimulatedRun:
        """Run the simulation with gates of its own."""
        gates = inputs.open(factors)
        return Simulation(
            arrivals,
            gates.__getitem__,
            follow=CappedFollowing(self.following.copy(), self._cap).after,
            window=self.window,
            own=self.senders[0],
            take_over=partial(self.take_over, gates),
        ).run(now.timestamp())


def _coming(coming: FileTrial) -> Iterable[tuple[RecipientGroup, int]]:
    for (domain, zone), number in coming.destinations.items():
        yield RecipientGroup(domain, None, None, zone), number


async def _states(context: AppContext, campaign: Campaign) -> tuple[dict[str, GateState], tuple[str, ...]]:
    """Return the gates of the queue, or a note that they are missing."""
    try:
        queue = await context.queue(queue_of(campaign))
        return {state.gate.name: state for state in await queue.gates()}, ()
    except PostroadError as error:
        return {}, (f"The queue cannot be reached, so its own limits and pauses are missing: {error.message}",)


def _forecast(
    demand: _Demand,
    arrivals: Sequence[Arrival],
    inputs: GateInputs,
    request: ForecastRequest,
    now: datetime,
    notes: tuple[str, ...],
) -> CampaignForecast:
    run = demand.simulate(arrivals, inputs, now)
    own = [arrival for arrival in arrivals if arrival.lane.campaign]
    deadline = request.deadline
    hours = sorted((key, messages) for key, messages in run.hours.items() if messages > 0)
    held = sorted(run.held.items(), key=lambda item: -item[1])
    return CampaignForecast(
        campaign=demand.campaign.name,
        launched=demand.campaign.launched_at is not None,
        made_at=now,
        recipients=round(sum(arrival.messages for arrival in own)),
        messages=sum(messages for _, _, messages in run.steps.values()),
        ends_at=utc(run.ended) if run.ended is not None else None,
        deadline=deadline,
        late=late_messages(run, deadline),
        overflow={sender: round(messages, 2) for sender, messages in run.overflow.items()},
        steps=tuple(
            StepForecast(
                step=demand.following.names[step],
                messages=round(messages, 2),
                first_at=utc(first),
                last_at=utc(last),
            )
            for step, (first, last, messages) in sorted(run.steps.items())
        ),
        holds=holds_of(held),
        helps=find_helps(run, lambda factors: demand.simulate(arrivals, inputs, now, factors)),
        hours=tuple(
            HourForecast(hour=utc(hour), sender=sender, provider=provider, messages=round(messages, 2))
            for (hour, sender, provider), messages in hours
        ),
        notes=notes,
    )
