"""A pass over a journey that is interrupted, runs twice at once, or finds nothing to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from postroad.campaign import journey_pass
from postroad.campaign.journey import Journey
from postroad.campaign.plan import advance, launch
from postroad.campaign.status import finish_if_done
from postroad.errors import StateError
from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.planning import STEP
from tests.campaign.journeys import (
    JOURNEY,
    PEOPLE,
    SHORT,
    launched,
    places,
    set_state,
    settle,
)
from tests.campaign.planned import run_at_once
from tests.campaign.project import NOW, CampaignProject
from tests.store.effort import sqlite_effort_of

DAY = timedelta(days=1)

S = TouchState


class CrashError(Exception):
    """Stands for a process that is killed."""


def crash_after(monkeypatch: pytest.MonkeyPatch, name: str, calls: int) -> None:
    """Interrupt a pass between two transactions, or within one before it commits."""
    done = 0
    write_it: Callable[..., object] = getattr(journey_pass, name)

    def interrupted(*args: object) -> object:
        nonlocal done
        done += 1
        if done > calls:
            raise CrashError
        return write_it(*args)

    monkeypatch.setattr(journey_pass, name, interrupted)


def crowd(number: int) -> list[str]:
    return [f"r{n}@d{n % 7}.example,,trial,{n % 10},DE,2026-05-20" for n in range(number)]


@pytest.mark.parametrize("name", ["enter", "plan_touches"])
def test_an_interrupted_launch_is_resumed_and_enrols_each_once(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    people = crowd(2 * STEP + 10)
    with monkeypatch.context() as patch:
        crash_after(patch, name, 1)
        with pytest.raises(CrashError):
            launched(project, people)
    assert len(places(project)) == STEP
    with pytest.raises(StateError):  # Its steps have enrolments, so they must not change.
        project.apply(JOURNEY.replace("Big", "Other"))
    found = launch(project.engine, "spring", NOW)
    assert (found.audience, found.already) == (len(people), False)
    assert len(project.touches()) == len(people)
    assert launch(project.engine, "spring", NOW).already


@pytest.mark.parametrize("name", ["mark_followed_up", "move", "plan_touches"])
@pytest.mark.parametrize("calls", [0, 1])
def test_an_interrupted_pass_is_resumed_and_plans_each_email_once(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch, name: str, calls: int
) -> None:
    people = crowd(1_100)
    launched(project, people)
    settle(project, "hello", S.ACCEPTED)
    at = NOW
    for _ in range(2):
        with monkeypatch.context() as patch:
            crash_after(patch, name, calls)
            with suppress(CrashError):
                advance(project.engine, "spring", at)
        advance(project.engine, "spring", at)
        at += 3 * DAY
    assert Counter(places(project).values()) == {"big active": 550, "german active": 550}
    assert len(project.touches()) == 2 * len(people)


def test_concurrent_passes_move_each_enrolment_once(project: CampaignProject) -> None:
    people = crowd(1_000)
    launched(project, people)
    settle(project, "hello", S.ACCEPTED)
    advances = [lambda: advance(project.engine, "spring", NOW)] * 3
    assert sum(run_at_once(advances)) == 0
    later = [lambda: advance(project.engine, "spring", NOW + 3 * DAY)] * 3
    assert sum(run_at_once(later)) == len(people)
    assert Counter(places(project).values()) == {"big active": 500, "german active": 500}
    assert len(project.touches()) == 2 * len(people)


def test_a_pass_that_read_before_the_campaign_was_cancelled_writes_nothing(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(project, PEOPLE[:1], SHORT)
    settle(project, "hello", S.ACCEPTED)
    walk = Journey.walk

    def cancelled_meanwhile(*args: Any) -> object:
        set_state(project, CampaignState.CANCELLED)
        return walk(*args)

    monkeypatch.setattr(Journey, "walk", cancelled_meanwhile)
    assert advance(project.engine, "spring", NOW) == 0
    assert places(project) == {"big": "hello active"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_idle_pass_takes_no_lock_and_reads_a_bounded_amount(project: CampaignProject) -> None:
    launched(project, crowd(200), SHORT)
    settle(project, "hello", S.ACCEPTED)
    advance(project.engine, "spring", NOW)
    efforts = []
    for others in ("autumn", "winter"):
        with sqlite_effort_of(project.engine) as effort, write(project.engine):
            assert advance(project.engine, "spring", NOW) == 0
            assert not finish_if_done(project.engine, "spring", NOW)
        efforts.append(effort.count)
        project.fill((f"s{n}@d{n % 7}.example,,Ada" for n in range(4_000)), audience=others)
        project.apply(SHORT.replace("spring", others).replace("people", others))
        launch(project.engine, others, NOW)
    assert efforts[1] <= efforts[0] + 400
