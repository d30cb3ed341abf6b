"""Random journeys and histories: the database agrees with a simulation of each person, and its sums are exact."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroad.campaign.plan import advance, launch
from postroad.campaign.status import summary
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress
from postroad.store.types import UtcDateTime
from tests.campaign.project import NOW, CampaignProject
from tests.campaign.simulation import WAITS, Sent, SimulatedPerson

CONDITIONS = ("plan = 'paid'", "number(n) >= 3", "not (number(n) >= 3)", "date(ends) < now()", "accepted('hello')")
ZONES = ("UTC", "Australia/Lord_Howe", "America/New_York")
OUTCOMES = (TouchState.ACCEPTED, TouchState.ACCEPTED, TouchState.ACCEPTED, TouchState.BOUNCED, TouchState.DEAD, None)

_email = st.fixed_dictionaries({"email": st.just(""), "at": st.sampled_from([None, None, "09:30", "23:15"])})
_wait = st.fixed_dictionaries({"wait": st.sampled_from([*WAITS])})
_until = st.fixed_dictionaries({"until": st.sampled_from(["date(ends)", "date(ends) - 2d"])})


def _steps(depth: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    kinds: list[st.SearchStrategy[dict[str, Any]]] = [_email, _email, _wait, _until]
    if depth:
        branch = {
            "if": st.sampled_from(CONDITIONS),
            "then": _steps(depth - 1),
            "else": st.one_of(st.just([]), _steps(depth - 1)),
        }
        kinds.append(st.fixed_dictionaries(branch))
    return st.lists(st.one_of(kinds), min_size=1, max_size=4)


_fields = st.fixed_dictionaries(
    {
        "plan": st.sampled_from(["trial", "trial", "paid"]),
        "n": st.sampled_from(["", "2", "7"]),
        "ends": st.sampled_from(["", "2026-05-03", "2026-05-09 12:00", "2026-05-20"]),
    }
)


@st.composite
def _journeys(draw: st.DrawFn) -> dict[str, Any]:
    steps = draw(_steps(2))
    steps.append({"email": "", "at": None})  # Every wait is followed by an email.
    _name(steps, iter(range(1, 10_000)))
    next(step for step in _walk(steps) if "email" in step)["name"] = "hello"
    return {
        "steps": steps,
        "exit": draw(st.sampled_from([None, "plan = 'paid'", "number(n) >= 5"])),
        "goal": draw(st.sampled_from([None, "plan = 'paid'"])),
        "people": [(draw(st.sampled_from(ZONES)), draw(_fields)) for _ in range(draw(st.integers(1, 4)))],
        "gaps": draw(st.lists(st.sampled_from(["5m", "40m", "9h", "1d", "4d"]), min_size=3, max_size=14)),
        "chance": draw(st.randoms(use_true_random=False)),
    }


def _name(steps: list[dict[str, Any]], numbers: Iterator[int]) -> None:
    for step in steps:
        number = next(numbers)
        kind = next(kind for kind in ("email", "wait", "until", "if") if kind in step)
        step["name"] = f"{kind}-{number}"
        if kind == "if":
            _name(step["then"], numbers)
            _name(step["else"], numbers)


def _walk(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in steps:
        yield step
        yield from _walk([*step.get("then", []), *step.get("else", [])])


def _yaml(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    for step in steps:
        if "email" in step:
            email = {"email": step["name"], "subject": "Hello", "text": "hello.txt"}
            written.append(email | ({"at": step["at"]} if step["at"] else {}))
        elif "wait" in step:
            written.append({"wait": step["wait"], "name": step["name"]})
        elif "until" in step:
            written.append({"wait_until": step["until"], "name": step["name"]})
        else:
            branches = {"then": _yaml(step["then"])} | ({"else": _yaml(step["else"])} if step["else"] else {})
            written.append({"if": step["if"], "name": step["name"], **branches})
    return written


GAPS = {
    "5m": timedelta(minutes=5),
    "40m": timedelta(minutes=40),
    "9h": timedelta(hours=9),
    "1d": timedelta(days=1),
    "4d": timedelta(days=4),
}


class Run:
    """One campaign in the database, and a simulation of each of its people."""

    def __init__(self, project: CampaignProject, case: dict[str, Any], number: int) -> None:
        self.engine, self.name, self.chance = project.engine, f"run-{number}", case["chance"]
        self.people = [
            SimulatedPerson(
                address=f"r{number}-{n}@example.com",
                zone=zone,
                fields=dict(fields),
                tree=case["steps"],
                exit=case["exit"],
                goal=case["goal"],
            )
            for n, (zone, fields) in enumerate(case["people"])
        ]
        # With an exit condition in any case: a campaign of emails and waits alone has no enrolments.
        content = {
            "name": self.name,
            "sender": "news",
            "audience": {"name": self.name},
            "exit": case["exit"] or "plan = 'never'",
            **({"goal": case["goal"]} if case["goal"] else {}),
            "steps": _yaml(case["steps"]),
        }
        project.apply(yaml.safe_dump(content, sort_keys=False))
        names = ("plan", "n", "ends")
        rows = [f"{one.address},{one.zone},{','.join(one.fields[name] for name in names)}" for one in self.people]
        project.fill(rows, header="email,tz,plan,n,ends", audience=self.name)

    def shock(self, now: datetime) -> None:
        """Let time do what it does between two passes: outcomes, changed fields, a suppression."""
        for person in self.people:
            email = person.sent.get(person.step)
            if email is not None and email.state is TouchState.PLANNED and email.due_at <= now:
                outcome = self.chance.choice(OUTCOMES)
                if outcome is not None:
                    self._settle(
                        person, email, outcome, max(email.due_at, now - timedelta(minutes=self.chance.randint(0, 300)))
                    )
            if self.chance.random() < 0.1:
                name, value = self.chance.choice([("plan", "paid"), ("n", "7"), ("ends", "2026-05-15")])
                person.fields[name] = value
                self._write("UPDATE recipient SET attributes = :fields WHERE address = :address", person)
            if self.chance.random() < 0.03:
                person.suppressed = True
                with write(self.engine) as connection:
                    suppress(connection, [person.address], SuppressionReason.MANUAL, "test", now)

    def _write(self, text: str, person: SimulatedPerson) -> None:
        fields = json.dumps(person.fields)
        if self.engine.dialect.name == "postgresql":
            text = text.replace(":fields", "CAST(:fields AS jsonb)")
        with write(self.engine) as connection:
            connection.execute(sa.text(text), {"fields": fields, "address": person.address})

    def _settle(self, person: SimulatedPerson, email: Sent, state: TouchState, at: datetime) -> None:
        email.state, email.settled_at = state, at
        statement = sa.text(
            "UPDATE touch SET state = :state, settled_at = :at WHERE state = 'planned' "
            "AND recipient_id = (SELECT id FROM recipient WHERE address = :address) "
            "AND step_id = (SELECT step.id FROM step JOIN campaign ON campaign.id = step.campaign_id "
            "WHERE campaign.name = :campaign AND step.name = :step)"
        ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
        values = {"state": state.value, "at": at, "address": person.address, "campaign": self.name, "step": person.step}
        with write(self.engine) as connection:
            assert connection.execute(statement, values).rowcount == 1

    def places(self) -> dict[str, tuple[Any, ...]]:
        statement = sa.text(
            "SELECT recipient.address, step.name, enrolment.state, enrolment.why, enrolment.due_at, "
            "enrolment.goal_at IS NOT NULL AS goal FROM enrolment JOIN recipient ON recipient.id = recipient_id "
            "JOIN step ON step.id = enrolment.step_id JOIN campaign ON campaign.id = enrolment.campaign_id "
            "WHERE campaign.name = :name"
        ).columns(
            sa.column("address", sa.Text()),
            sa.column("name", sa.Text()),
            sa.column("state", sa.Text()),
            sa.column("why", sa.Text()),
            sa.column("due_at", UtcDateTime()),
            sa.column("goal", sa.Boolean()),
        )
        with read(self.engine) as connection:
            return {row[0]: tuple(row[1:]) for row in connection.execute(statement, {"name": self.name})}

    def compare(self, project: CampaignProject, now: datetime) -> None:
        expected = {one.address: (one.step, one.state, one.why, one.due_at) for one in self.people}
        found = self.places()
        assert {address: place[:4] for address, place in found.items()} == expected, now
        goals = {address: place[4] for address, place in found.items()}
        # A goal is noticed before each step, and in between by a scan.
        for one in self.people:
            assert goals[one.address] or not one.reached_goal, one
        touches = {(address, step): (state, due_at) for step, address, state, due_at in project.touches(self.name)}
        assert touches == {
            (one.address, step): (email.state.value, email.due_at)
            for one in self.people
            for step, email in one.sent.items()
        }
        journey = summary(self.engine, self.name).journey
        assert journey is not None
        states = Counter(one.state for one in self.people)
        assert (journey.active, journey.completed) == (states["active"], states["completed"])
        assert journey.exited == dict(Counter(one.why for one in self.people if one.state == "exited"))
        assert journey.enrolled == len(self.people)


_numbers = iter(range(1, 1_000_000))


def live(project: CampaignProject, case: dict[str, Any]) -> None:
    run = Run(project, case, next(_numbers))
    launch(project.engine, run.name, NOW)
    for one in run.people:
        one.enter(NOW)
    if not case["exit"]:
        assert {one.why for one in run.people} <= {None, "no-date"}
    now = NOW
    advance(project.engine, run.name, now)
    run.compare(project, now)
    for gap in case["gaps"]:
        now += GAPS[gap]
        run.shock(now)
        advance(project.engine, run.name, now)
        for one in run.people:
            one.look(now)
        run.compare(project, now)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    yield path
    shutil.rmtree(path)


@pytest.mark.timeout(600)
def test_random_journeys_agree_with_a_simulation_of_each_person(engine: sa.Engine, folder: Path) -> None:
    project = CampaignProject(folder, engine)

    @settings(max_examples=100, deadline=None, suppress_health_check=[*HealthCheck])
    @given(_journeys())
    def agree(case: dict[str, Any]) -> None:
        live(project, case)

    agree()
