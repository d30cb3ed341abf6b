"""A forecast knows that most recipients of a tested step wait for the decision."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import advance, launch
from postroad.forecast.report import CampaignForecast
from postroad.store.engine import write
from tests.forecast.test_forecast import MONDAY, clock, context, forecast, readers, rows  # noqa: F401  (fixtures)
from tests.kit.clock import FakeClock

TESTED = """
name: trial
sender: ada
audience: {name: trial}
steps:
  - email: hello
    subject: Hello
    text: hello.txt
    variants: [{name: a, subject: A, share: 50}, {name: b, share: 50}]
    winner: {by: replied, decide: {after: 2d, at_most: 25%}}
  - wait: 1d
  - {email: again, subject: Again, text: hello.txt}
"""
DAY = timedelta(days=1)


def applied(context: AppContext, text: str = TESTED) -> None:  # noqa: F811
    folder = context.settings.base_dir
    (folder / "campaign.yaml").write_text(text)
    apply(context.engine, context.settings, read_campaign(folder / "campaign.yaml", context.settings), MONDAY)
    import_file(context.engine, "trial", rows(folder, readers(40)), MONDAY)


def by_day(found: CampaignForecast) -> dict[int, int]:
    """Return the messages by days after Monday morning."""
    days: dict[int, int] = {}
    for hour in found.hours:
        day = (hour.hour - MONDAY.replace(hour=9)) // DAY
        days[day] = days.get(day, 0) + round(hour.messages)
    return days


async def test_the_rest_of_a_draft_leaves_after_the_decision(context: AppContext) -> None:  # noqa: F811
    applied(context)
    found = await forecast(context)
    assert {step.step: round(step.messages) for step in found.steps} == {"hello": 40, "again": 40}
    assert by_day(found) == {0: 10, 1: 10, 2: 30, 3: 30}
    assert any("tests its variants with at most 25 % of the recipients" in note for note in found.notes)
    assert found.recipients == 40


async def test_a_running_test_is_forecast_from_its_own_time(context: AppContext, clock: FakeClock) -> None:  # noqa: F811
    applied(context)
    launch(context.engine, "trial", clock.now())
    with write(context.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'accepted', settled_at = due_at WHERE state = 'planned'"))
    clock.advance(6 * 3_600_000)
    advance(context.engine, "trial", clock.now())
    found = await forecast(context)
    assert by_day(found) == {1: 10, 2: 30, 3: 30}
    assert any("2026-12-02 09:00 UTC at the latest" in note for note in found.notes)
    clock.advance(2 * 86_400_000)
    advance(context.engine, "trial", clock.now())  # Decided, without a winner.
    after = await forecast(context)
    assert sum(by_day(after).values()) == 70
    assert not any("tests its variants" in note for note in after.notes)


async def test_a_test_of_everyone_delays_no_one(context: AppContext) -> None:  # noqa: F811
    applied(context, TESTED.replace("25%", "100%"))
    assert by_day(await forecast(context)) == {0: 40, 1: 40}
