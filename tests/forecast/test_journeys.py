"""The forecast of a journey: shares at conditions, dates, and enrolments that wait."""

from __future__ import annotations

import asyncio
import csv
from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import advance, launch
from postroad.delivery.job import SEND_QUEUE
from postroad.forecast.coming import coming_recipients
from postroad.forecast.forecast import FILE_NOTE, ForecastRequest, forecast_campaign
from postroad.forecast.report import CampaignForecast
from postroad.operations import campaigns
from postroad.store.engine import write
from tests.forecast.test_forecast import MONDAY, clock, context, forecast  # noqa: F401  (fixtures)
from tests.kit.clock import FakeClock

JOURNEY = """
name: trial
sender: ada
audience: {name: trial}
goal: "plan = 'paid'"
steps:
  - {email: hello, subject: Hello, text: hello.txt}
  - wait: 3d
  - if: "number(seats) >= 5"
    then:
      - {email: big, subject: Big, text: hello.txt}
    else:
      - {email: small, subject: Small, text: hello.txt}
      - {wait: 1d}
      - {email: smaller, subject: Smaller, text: hello.txt}
  - wait_until: "date(trial_ends) - 2d"
  - {email: last, subject: Last, text: hello.txt}
"""


def journey(context: AppContext, text: str = JOURNEY) -> None:  # noqa: F811
    """Make the journey: 20 recipients with many seats, 40 with few, and 15 of them without a date."""
    folder = context.settings.base_dir
    (folder / "campaign.yaml").write_text(text)
    apply(context.engine, context.settings, read_campaign(folder / "campaign.yaml", context.settings), MONDAY)
    with (folder / "people.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["email", "plan", "seats", "trial_ends"])
        for number in range(60):
            ends = "" if number % 4 == 0 else "2026-12-20"
            rows.writerow([f"reader{number}@gmail.com", "trial", 7 if number % 3 == 0 else 2, ends])
    import_file(context.engine, "trial", folder / "people.csv", MONDAY)


def messages(found: CampaignForecast) -> dict[str, int]:
    return {step.step: round(step.messages) for step in found.steps}


async def test_a_draft_goes_all_its_ways_by_their_shares(context: AppContext) -> None:  # noqa: F811
    journey(context)
    found = await forecast(context)
    assert messages(found) == {"hello": 60, "big": 20, "small": 40, "smaller": 40, "last": 45}
    assert found.ends_at is not None
    # Two days before the trial ends, at the rate of the sender.
    assert timedelta(days=18) <= found.ends_at - MONDAY.replace(hour=0) < timedelta(days=18, hours=2)


async def test_a_running_journey_goes_on_from_where_its_recipients_are(
    context: AppContext,  # noqa: F811
    clock: FakeClock,  # noqa: F811
) -> None:
    journey(context)
    launch(context.engine, "trial", clock.now())
    assert messages(await forecast(context)) == {"hello": 60, "big": 20, "small": 40, "smaller": 40, "last": 45}
    with write(context.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'accepted', settled_at = due_at"))
    followed = messages(await forecast(context))
    assert followed == {"big": 20, "small": 40, "smaller": 40, "last": 45}
    clock.advance(60_000)
    advance(context.engine, "trial", clock.now())  # They wait for three days now.
    assert messages(await forecast(context)) == followed
    clock.advance(3 * 86_400_000)
    advance(context.engine, "trial", clock.now())  # Their next emails are planned.
    waiting = await forecast(context)
    assert messages(waiting) == followed
    assert waiting.recipients == pytest.approx(60)


SEGMENT = JOURNEY.replace("{name: trial}", '{name: trial, where: "number(seats) >= 5"}')


async def test_shares_are_those_of_the_segment(context: AppContext, clock: FakeClock) -> None:  # noqa: F811
    journey(context)
    journey(context, SEGMENT)  # The fields of a condition are those of the audience.
    expected = {"hello": 20, "big": 20, "last": 15}
    assert messages(await forecast(context)) == expected
    launch(context.engine, "trial", clock.now())
    assert messages(await forecast(context)) == expected


async def test_a_file_that_is_not_imported_is_named_in_the_notes(context: AppContext) -> None:  # noqa: F811
    (context.settings.base_dir / "people.csv").write_text("email,seats\n")
    journey(context, JOURNEY.replace("{name: trial}", "{name: others, file: people.csv}"))
    coming = await asyncio.to_thread(coming_recipients, context, "trial")
    found = await forecast_campaign(context, ForecastRequest(campaign="trial", coming=coming))
    assert FILE_NOTE in found.notes
    import_file(context.engine, "others", context.settings.base_dir / "people.csv", MONDAY)
    assert FILE_NOTE not in (await forecast(context)).notes


async def test_a_paused_campaign_does_not_end(context: AppContext, clock: FakeClock) -> None:  # noqa: F811
    journey(context)
    launch(context.engine, "trial", clock.now())
    await campaigns.pause(context.engine, await context.queue(SEND_QUEUE), "trial", by="a test", now=clock.now())
    found = await forecast(context)
    assert (found.ends_at, found.holds[0].cause) == (None, "campaign:trial")
    assert found.holds[0].limit == "paused until it is resumed"
    await campaigns.resume(context.engine, await context.queue(SEND_QUEUE), "trial", by="test", now=context.clock.now())


async def test_a_skipped_email_is_followed_by_the_next_step(context: AppContext, clock: FakeClock) -> None:  # noqa: F811
    journey(context)
    launch(context.engine, "trial", clock.now())
    with write(context.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'skipped', settled_at = due_at"))
    assert messages(await forecast(context)) == {"big": 20, "small": 40, "smaller": 40, "last": 45}


async def test_many_conditions_take_no_longer_than_their_ways_need(context: AppContext) -> None:  # noqa: F811
    steps = "".join(
        f'  - if: "number(seats) >= {number}"\n    then:\n      - wait: {number + 1}h\n' for number in range(40)
    )
    journey(
        context,
        JOURNEY.partition("steps:")[0] + f"steps:\n{steps}  - {{email: last, subject: Last, text: hello.txt}}\n",
    )
    assert messages(await forecast(context)) == {"last": 60}
