"""Which schedules an installation changes, decided without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.server.schemas.schedules import CronSchedule as ServerCronSchedule

from deployments.schedules import Create, Delete, ScheduleFields, Update, decide, fields_of_file
from deployments.spec import ScheduleSpec

ID = UUID("00000000-0000-0000-0000-000000000001")
SIX = ScheduleSpec(slug="morning", cron="0 6 * * *", timezone="Europe/Berlin", active=True)
SEVEN = SIX.model_copy(update={"cron": "0 7 * * *"})


def on_server(spec: ScheduleSpec, **changed: Any) -> DeploymentSchedule:
    """The schedule on the server, with changes of the UI."""
    fields = {"schedule": spec.cron_schedule, "active": spec.active, "parameters": spec.parameters, **changed}
    return DeploymentSchedule(id=ID, deployment_id=uuid4(), slug=spec.slug, **fields)


def recorded(spec: ScheduleSpec) -> dict[str, ScheduleFields]:
    return {spec.slug: fields_of_file(spec)}


@pytest.mark.parametrize("timezone", ["Etc/UTC", "Europe/Berlin"])
async def test_the_scheduler_of_prefect_finds_the_dates_of_a_cron_schedule(timezone: str) -> None:
    """With whenever 0.10 it finds none on Python 3.11 and 3.12, and logs an error."""
    schedule = ServerCronSchedule(cron="30 9 * * *", timezone=timezone)
    first, second = await schedule.get_dates(n=2, start=datetime(2026, 5, 4, tzinfo=UTC))
    assert (first.hour, first.minute, second - first) == (9, 30, timedelta(days=1))


def test_the_first_install_creates_what_the_file_says() -> None:
    assert decide([SIX], [], {}) == [Create(SIX)]


def test_an_unchanged_file_changes_nothing() -> None:
    assert decide([SIX], [on_server(SIX)], recorded(SIX)) == []


def test_an_unchanged_schedule_follows_the_file() -> None:
    assert decide([SEVEN], [on_server(SIX)], recorded(SIX)) == [Update(ID, SEVEN, frozenset({"cron"}))]


@pytest.mark.parametrize(
    "changed",
    [
        {"active": False},
        {"schedule": CronSchedule(cron="0 11 * * *", timezone="Europe/Berlin")},
        {"schedule": CronSchedule(cron="0 6 * * *", timezone="Asia/Tokyo")},
        {"schedule": IntervalSchedule(interval=timedelta(hours=1))},
        {"parameters": {"params": {"campaign": "mine"}}},
    ],
)
def test_a_change_of_the_ui_stays(changed: dict[str, Any]) -> None:
    assert decide([SIX], [on_server(SIX, **changed)], recorded(SIX)) == []


def test_a_paused_schedule_follows_the_file_in_other_fields() -> None:
    changes = decide([SEVEN], [on_server(SIX, active=False)], recorded(SIX))
    assert changes == [Update(ID, SEVEN, frozenset({"cron"}))]


def test_a_deleted_schedule_returns_only_when_the_file_changes() -> None:
    assert decide([SIX], [], recorded(SIX)) == []
    assert decide([SEVEN], [], recorded(SIX)) == [Create(SEVEN)]


def test_a_slug_missing_from_the_file_is_deleted_and_one_without_stays() -> None:
    without_slug = on_server(SIX).model_copy(update={"slug": None})
    assert decide([], [on_server(SIX), without_slug], recorded(SIX)) == [Delete(ID)]


def test_a_schedule_from_before_the_first_install_stays_as_it_is() -> None:
    """`prefect deploy` installed it: which of the two is meant is unknown."""
    assert decide([SEVEN], [on_server(SIX)], {}) == []
