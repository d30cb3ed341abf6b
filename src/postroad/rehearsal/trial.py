"""Plays the example of a journey on parts of its own by a faster clock: people join, events come, and time passes."""

from __future__ import annotations

import asyncio
import csv
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from postroad.app.advance import advance_campaign
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import CampaignFile, read_campaign
from postroad.campaign.launch_rules import LaunchRules
from postroad.campaign.plan import launch
from postroad.campaign.status import JourneySummary, summary
from postroad.clock import ScaledClock
from postroad.errors import UnavailableError
from postroad.rehearsal.environment import (
    RehearsalEnvironment,
    RehearsalOptions,
    open_environment,
    open_workers,
)
from postroad.rehearsal.holds import Holds
from postroad.rehearsal.run import watch
from postroad.rehearsal.speed import SpeedController
from postroad.settings import Settings
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.recipient_event import NewEvent, record_events
from postroad.store.types import UtcDateTime

EXAMPLE = Path("examples/trial")
SPEED = 100_000.0
PASS_EVERY = timedelta(hours=2)
"""Of the campaign's clock. A pass is also made when a wait is over."""
WITHIN_S = 300.0
"""Real time after which the demo gives up."""
ENDS = timedelta(days=18)
"""The last one whose journey ends in it waits until the seventeenth day, at any hour of the launch."""

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


class ExamplePerson(NamedTuple):
    """A person of the example. ``joins``: days after the launch; ``trial_days``: None: the trial has no end."""

    address: str
    time_zone: str
    first_name: str
    plan: str
    logins: int | None
    joins: int = 0
    trial_days: int | None = 14


class Moment(NamedTuple):
    """Something that happens: an event of a person, or other fields. ``day``: after the launch."""

    day: int
    words: str
    address: str
    event: str | None = None
    logins: int | None = None


PEOPLE = (
    ExamplePerson("grace@example.com", "America/New_York", "Grace", "trial", 9),
    ExamplePerson("alan@example.com", "Europe/London", "Alan", "trial", 1),
    ExamplePerson("edsger@example.com", "Europe/Amsterdam", "Edsger", "trial", None, trial_days=None),
    ExamplePerson("barbara@example.com", "America/New_York", "Barbara", "paid", 4),
    ExamplePerson("katherine@example.com", "America/Chicago", "Katherine", "trial", 6, joins=1),
    ExamplePerson("radia+bounce@example.com", "America/Los_Angeles", "Radia", "trial", 2, joins=1),
    ExamplePerson("donald@example.com", "America/Los_Angeles", "Donald", "trial", 0, joins=2),
    ExamplePerson("mary@example.com", "Europe/Berlin", "Mary", "trial", 12, joins=5),
    ExamplePerson("annie@example.com", "America/New_York", "Annie", "trial", 3, joins=12),
)
MOMENTS = (
    Moment(2, "Alan has logged in seven times", "alan@example.com", logins=7),
    Moment(2, "Katherine pays", "katherine@example.com", event="paid"),
    Moment(9, "Mary pays", "mary@example.com", event="paid"),
)


@dataclass(frozen=True, kw_only=True)
class PersonEnd:
    """Where a person is at the end. ``emails``: steps whose email was accepted. ``why``: one sentence."""

    person: str
    entered_at: datetime
    emails: tuple[str, ...]
    state: str
    step: str
    why: str
    goal: bool


@dataclass(frozen=True, kw_only=True)
class TrialEnd:
    """The end of the demo. ``complete``: the sums are exact, and the sandbox has each accepted message once."""

    campaign: str
    launched_at: datetime
    ended_at: datetime
    people: tuple[PersonEnd, ...]
    enrolled: int
    active: int
    completed: int
    exited: dict[str, int]
    goal: int
    accepted: int
    captured: int
    seconds: float
    complete: bool


Say = Callable[[datetime, str], None]
"""Called with the time of the campaign's clock and what happens."""


async def play_trial(settings: Settings, folder: Path, start: datetime, say: Say) -> TrialEnd:
    """Play the example in an empty folder. No message leaves this machine.

    Args:
        settings: The settings with the example's sender. Their servers and routes are not used.
        folder: An empty folder.
        start: When the campaign is launched.
        say: Called as things happen.

    Returns:
        Where everyone is at the end, and why.

    Raises:
        ConfigError: The example or its sender is missing or was changed so that it is not valid.
        UnavailableError: A part does not start, or the demo takes too long.
    """
    began_s = time.monotonic()
    file = read_campaign(settings.base_dir / EXAMPLE / "campaign.yaml", settings)
    options = RehearsalOptions(
        campaign=file.path, shares={}, speed=SPEED, recipients=None, within_ms=int(ENDS.total_seconds() * 1000)
    )
    clock = ScaledClock(start, 1.0)
    try:
        async with asyncio.timeout(WITHIN_S):
            async with AsyncExitStack() as stack:
                with clock.paused():
                    environment = await stack.enter_async_context(open_environment(options, settings, folder, clock))
                    trial = _Trial(environment, file, folder, say)
                    await asyncio.to_thread(trial.begin)
                await _play(trial)
                return await asyncio.to_thread(trial.result, start, time.monotonic() - began_s)
    except TimeoutError:
        raise UnavailableError(
            f"the demo has not ended after {WITHIN_S:g} s",
            remedy="This machine is busy. Run it again when it has time.",
        ) from None


async def _play(trial: _Trial) -> None:
    """Let time pass, with workers that send. A task that ends before its time has failed."""
    async with open_workers(trial.environment, SPEED) as workers:
        now_ms = trial.environment.clock.now_ms()
        speed, holds = SpeedController(SPEED, workers.slots, now_ms), Holds(now_ms)
        watching = asyncio.create_task(watch(trial.environment, workers, speed, holds))
        playing = asyncio.create_task(trial.run())
        try:
            tasks = [playing, watching, *workers.tasks]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, *workers.tasks):
                if task.done():
                    task.result()
            await playing
        finally:
            for task in (playing, watching):
                task.cancel()
            await asyncio.gather(playing, watching, return_exceptions=True)


class _Trial:
    """The campaign, and what happens to its people."""

    def __init__(self, environment: RehearsalEnvironment, file: CampaignFile, folder: Path, say: Say) -> None:
        self.environment = environment
        self._file = file
        self._folder = folder
        self._say = say
        self._name = file.definition.name
        self._launched_at = environment.clock.now()

    def begin(self) -> None:
        """Apply the campaign, import who is there, and launch it."""
        context, now = self.environment.context, self.environment.clock.now()
        apply(context.engine, context.settings, self._file, now)
        self._import([one for one in PEOPLE if one.joins == 0], now)
        rules = LaunchRules(source_field=context.settings.cohort_breaker.source_field)
        launch(context.engine, self._name, now, context.hash_of, calendar=context.calendar, rules=rules)
        self._say(now, f"{self._name} is launched; {_names(one for one in PEOPLE if one.joins == 0)} are there")

    async def run(self) -> None:
        """Let everything happen in its order, and make passes between."""
        clock = self.environment.clock
        start = self._launched_at
        days = sorted({*(one.joins for one in PEOPLE if one.joins), *(one.day for one in MOMENTS)})
        for day in days:
            await self._pass_until(start + day * _DAY)
            with clock.paused():
                await asyncio.to_thread(self._happen, day)
        await self._pass_until(start + ENDS)
        await self._settle()

    def _happen(self, day: int) -> None:
        context, now = self.environment.context, self.environment.clock.now()
        joining = [one for one in PEOPLE if one.joins == day and day]
        if joining:
            self._import(joining, now)
            self._say(now, f"{_names(joining)} {'joins' if len(joining) == 1 else 'join'}")
        for moment in MOMENTS:
            if moment.day != day:
                continue
            if moment.event is not None:
                with write(context.engine) as connection:
                    record_events(connection, [NewEvent(moment.address, moment.event, now)])
            if moment.logins is not None:
                person = next(one for one in PEOPLE if one.address == moment.address)
                self._import([person._replace(logins=moment.logins)], now)
            self._say(now, moment.words)

    def _import(self, people: Sequence[ExamplePerson], now: datetime) -> None:
        context, audience = self.environment.context, self._file.definition.audience_name
        path = self._folder / f"people-{now:%Y%m%d-%H%M%S}-{len(people)}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["email", "tz", "first_name", "plan", "logins", "trial_ends"])
            for one in people:
                ends = (
                    f"{self._launched_at + one.joins * _DAY + one.trial_days * _DAY:%Y-%m-%d}"
                    if one.trial_days is not None
                    else ""
                )
                logins = "" if one.logins is None else one.logins
                writer.writerow([one.address, one.time_zone, one.first_name, one.plan, logins, ends])
        import_file(context.engine, audience, path, now, types=context.settings.field_types(audience))
        self.environment.store_providers()

    async def _pass_until(self, until: datetime) -> None:
        """Make passes until a time of the campaign's clock."""
        clock = self.environment.clock
        while (now := clock.now()) < until:
            with clock.paused():
                done = await advance_campaign(self.environment.context, self._name)
                if done.submitted:
                    clock.set_speed(min(clock.speed, 1.0))  # Until `watch` has seen what was submitted.
                due_at = (await asyncio.to_thread(summary, self.environment.context.engine, self._name)).next_due_at
            later = min(until, now + PASS_EVERY, max(due_at or until, now + timedelta(minutes=1)))
            await clock.sleep((later - now).total_seconds())

    async def _settle(self) -> None:
        """Wait until nothing is in the queue or on the wire any more."""
        context = self.environment.context
        while not (await asyncio.to_thread(summary, context.engine, self._name)).settled:
            await self._pass_until(self.environment.clock.now() + _HOUR)

    def result(self, launched_at: datetime, seconds: float) -> TrialEnd:
        """Return where everyone is, and whether the numbers add up."""
        engine = self.environment.context.engine
        current = summary(engine, self._name)
        journey = current.journey
        assert journey is not None  # noqa: S101  (the example is a journey)
        people = self._people()
        captured = Counter(message.message_id for message in self.environment.sandbox.accepted())
        accepted = current.counts[TouchState.ACCEPTED]
        return TrialEnd(
            campaign=self._name,
            launched_at=launched_at,
            ended_at=self.environment.clock.now(),
            people=people,
            enrolled=journey.enrolled,
            active=journey.active,
            completed=journey.completed,
            exited={str(reason): n for reason, n in journey.exited.items()},
            goal=journey.goal,
            accepted=accepted,
            captured=captured.total(),
            seconds=round(seconds, 1),
            complete=_adds_up(journey, people) and accepted == captured.total() == len(captured),
        )

    def _people(self) -> tuple[PersonEnd, ...]:
        statement = sa.text(
            "SELECT recipient.id, recipient.address, enrolment.entered_at, enrolment.state, step.name, enrolment.why, "
            "enrolment.due_at, enrolment.goal_at FROM enrolment "
            "JOIN recipient ON recipient.id = enrolment.recipient_id "
            "JOIN step ON step.id = enrolment.step_id ORDER BY enrolment.entered_at, recipient.id"
        ).columns(
            sa.column("id", sa.Integer()),
            sa.column("address", sa.Text()),
            sa.column("entered_at", UtcDateTime()),
            *(sa.column(name, sa.Text()) for name in ("state", "name", "why")),
            sa.column("due_at", UtcDateTime()),
            sa.column("goal_at", UtcDateTime()),
        )
        emails = sa.text(
            "SELECT touch.recipient_id, step.name FROM touch JOIN step ON step.id = touch.step_id "
            "WHERE touch.state = 'accepted' ORDER BY touch.settled_at"
        )
        got: defaultdict[int, list[str]] = defaultdict(list)
        with read(self.environment.context.engine) as connection:
            for recipient_id, step in connection.execute(emails):
                got[recipient_id].append(step)
            rows = connection.execute(statement).all()
        return tuple(
            PersonEnd(
                person=row.address,
                entered_at=row.entered_at,
                emails=tuple(got[row.id]),
                state=row.state,
                step=row.name,
                why=self._why(row.state, row.why, row.due_at),
                goal=row.goal_at is not None,
            )
            for row in rows
        )

    def _why(self, state: str, reason: str | None, due_at: datetime | None) -> str:
        if state == "active":
            return f"waits until {due_at:%Y-%m-%d %H:%M} UTC" if due_at is not None else "an email is under way"
        if reason == "exit":
            return f"the exit condition is met: {self._file.definition.exit}"
        return reason or "passed the last step"


def _adds_up(journey: JourneySummary, people: Sequence[PersonEnd]) -> bool:
    ended = journey.active + journey.completed + sum(journey.exited.values())
    return journey.enrolled == ended == len(people)


def _names(people: Iterable[ExamplePerson]) -> str:
    names = [one.first_name for one in people]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
