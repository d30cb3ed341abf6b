"""What an install does to schedules, decided without a server."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

from deployments.schedules import Account, Create, Delete, Update, account, decide
from deployments.spec import ScheduleSpec

ID = UUID("00000000-0000-0000-0000-000000000001")
SIX = ScheduleSpec(slug="morning", cron="0 6 * * *", timezone="Europe/Berlin", active=True)
SEVEN = SIX.model_copy(update={"cron": "0 7 * * *"})


def on_server(spec: ScheduleSpec, **changed: Any) -> DeploymentSchedule:
    """The schedule as the server has it, with what somebody changed there."""
    fields = {"schedule": spec.cron_schedule, "active": spec.active, "parameters": spec.parameters, **changed}
    return DeploymentSchedule(id=ID, deployment_id=uuid4(), slug=spec.slug, **fields)


def recorded(spec: ScheduleSpec) -> dict[str, Account]:
    return {spec.slug: account(spec)}


def test_the_first_install_creates_what_the_file_says() -> None:
    assert decide([SIX], [], {}) == [Create(SIX)]


def test_nothing_new_changes_nothing() -> None:
    assert decide([SIX], [on_server(SIX)], recorded(SIX)) == []


def test_what_nobody_touched_follows_the_file() -> None:
    assert decide([SEVEN], [on_server(SIX)], recorded(SIX)) == [Update(ID, SEVEN, frozenset({"cron"}))]


@pytest.mark.parametrize(
    "touched",
    [
        {"active": False},
        {"schedule": CronSchedule(cron="0 11 * * *", timezone="Europe/Berlin")},
        {"schedule": CronSchedule(cron="0 6 * * *", timezone="Asia/Tokyo")},
        {"schedule": IntervalSchedule(interval=timedelta(hours=1))},
        {"parameters": {"params": {"campaign": "mine"}}},
    ],
)
def test_what_somebody_touched_stays(touched: dict[str, Any]) -> None:
    assert decide([SIX], [on_server(SIX, **touched)], recorded(SIX)) == []


def test_a_schedule_that_was_paused_follows_the_file_in_all_else() -> None:
    changes = decide([SEVEN], [on_server(SIX, active=False)], recorded(SIX))
    assert changes == [Update(ID, SEVEN, frozenset({"cron"}))]


def test_a_schedule_somebody_deleted_comes_back_only_with_something_new() -> None:
    assert decide([SIX], [], recorded(SIX)) == []
    assert decide([SEVEN], [], recorded(SIX)) == [Create(SEVEN)]


def test_a_slug_that_left_the_file_goes_and_one_without_a_slug_stays() -> None:
    by_hand = on_server(SIX).model_copy(update={"slug": None})
    assert decide([], [on_server(SIX), by_hand], recorded(SIX)) == [Delete(ID)]


def test_a_schedule_from_before_the_first_install_stays_as_it_is() -> None:
    """Somebody deployed by hand: which of the two is meant cannot be told."""
    assert decide([SEVEN], [on_server(SIX)], {}) == []
