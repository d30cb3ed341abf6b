"""The forecast of a campaign, from its database: drafts, running campaigns, overflow, pauses, other values."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.app.context import AppContext, open_context
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.campaign.file_trial import try_file
from postroad.campaign.plan import advance, launch
from postroad.campaign.segment import Segment
from postroad.delivery.job import SEND_QUEUE
from postroad.errors import PostroadError, StateError
from postroad.forecast.forecast import ForecastRequest, forecast_campaign
from postroad.forecast.report import CampaignForecast, HourForecast, whole_messages
from postroad.gates.name import GateName
from postroad.operations import campaigns
from postroad.queue import Rate
from postroad.settings import Settings
from postroad.store.engine import write
from postroad.store.suppression import SuppressionReason, suppress
from tests.kit.clock import FakeClock
from tests.kit.queues import delete_queue

MONDAY = datetime(2026, 11, 30, 9, tzinfo=UTC)
ADA, BOB = "ada@sender.example", "bob@other.example"
SETTINGS = """
redis_url = "{redis}"
secret_key = "a key that is only used in tests"
state_dir = "state"
[senders.ada]
address = "ada@sender.example"
postal_address = "1 Post Road, Milestone"
route = "relay"
rate = "60/1h"
[senders.bob]
address = "bob@other.example"
postal_address = "1 Post Road, Milestone"
route = "relay"
rate = "600/1h"
[routes.relay]
host = "127.0.0.1"
port = 1
shaped = true
"""
WARMUP = """
[senders.ada.warmup]
preset = "table"
table = [5, 10, 20]
opens = "09:00"
closes = "21:00"
"""
CAMPAIGN = """
name: {name}
sender: ada
audience: {{name: {name}}}
{more}
steps:
  - email: hello
    subject: "Hello"
    text: hello.txt
  - wait: 6h
  - email: again
    subject: "Hello again"
    text: hello.txt
"""
pytestmark = pytest.mark.usefixtures("clock")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(int(MONDAY.timestamp() * 1000))


@pytest.fixture
async def context(engine: sa.Engine, redis_url: str, tmp_path: Path, clock: FakeClock) -> AsyncIterator[AppContext]:
    async for opened in open_with(engine, redis_url, tmp_path, clock, SETTINGS):
        yield opened


@pytest.fixture
async def warming(engine: sa.Engine, redis_url: str, tmp_path: Path, clock: FakeClock) -> AsyncIterator[AppContext]:
    async for opened in open_with(engine, redis_url, tmp_path, clock, SETTINGS + WARMUP):
        yield opened


async def open_with(
    engine: sa.Engine, redis_url: str, folder: Path, clock: FakeClock, text: str
) -> AsyncIterator[AppContext]:
    (folder / "postroad.toml").write_text(text.format(redis=redis_url))
    (folder / "hello.txt").write_text("Hello.\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n")
    async with open_context(Settings.load(folder / "postroad.toml"), clock, engine=engine) as opened:
        yield opened
    await delete_queue(redis_url, SEND_QUEUE)


def campaign(context: AppContext, addresses: Sequence[str], *, name: str = "trial", more: str = "") -> None:
    folder = context.settings.base_dir
    (folder / "campaign.yaml").write_text(CAMPAIGN.format(name=name, more=more))
    file = read_campaign(folder / "campaign.yaml", context.settings)
    apply(context.engine, context.settings, file, context.clock.now())
    import_file(context.engine, name, rows(folder, addresses), context.clock.now())


def rows(folder: Path, addresses: Sequence[str]) -> Path:
    with (folder / "readers.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["address", "time_zone"], *([address, ""] for address in addresses)])
    return folder / "readers.csv"


def readers(count: int, domain: str = "mailbox.example") -> list[str]:
    return [f"reader{number}@{domain}" for number in range(count)]


async def forecast(context: AppContext, name: str = "trial", **values: object) -> CampaignForecast:
    return await forecast_campaign(context, ForecastRequest(campaign=name, **values))  # type: ignore[arg-type]


def hours_after(found: CampaignForecast) -> float:
    assert found.ends_at is not None
    return (found.ends_at - found.made_at) / timedelta(hours=1)


async def test_a_draft_is_forecast_as_if_it_was_launched_now(context: AppContext) -> None:
    campaign(context, [*readers(120), "gone@mailbox.example"])
    with write(context.engine) as connection:
        suppress(connection, ["gone@mailbox.example"], SuppressionReason.UNSUBSCRIBE, "test", MONDAY)
    found = await forecast(context)
    assert (found.launched, found.recipients, round(found.messages)) == (False, 120, 240)
    assert hours_after(found) == pytest.approx(8, abs=0.3)
    assert [(step.step, round(step.messages)) for step in found.steps] == [("hello", 120), ("again", 120)]
    assert found.holds[0].cause == "sender:ada@sender.example"
    assert found.holds[0].limit == "rate 60 in 3600 s"
    assert found.helps[0].change == "twice the limit of sender:ada@sender.example"
    assert found.helps[0].hours_earlier == pytest.approx(1, abs=0.2)
    assert sum(hour.messages for hour in found.hours) == pytest.approx(240, abs=0.5)


async def test_what_comes_with_the_file_of_a_launch_is_counted(context: AppContext) -> None:
    campaign(context, readers(60))
    file = rows(context.settings.base_dir, [*readers(60), *readers(60, "gmail.com")])
    everyone = Segment(audience_id=1, condition=None, now=context.clock.now())
    coming = try_file(context.engine, everyone, file, (), budget_s=0.0)
    found = await forecast(context, coming=coming)
    assert found.recipients == 120
    assert {hour.provider for hour in found.hours} == {"google", "other"}
    import_file(context.engine, "trial", file, context.clock.now())
    assert (await forecast(context, coming=coming)).recipients == 120, "it was imported after the trial"


async def test_a_running_campaign_is_forecast_from_what_is_left(context: AppContext, clock: FakeClock) -> None:
    campaign(context, readers(120))
    launch(context.engine, "trial", clock.now())
    with write(context.engine) as connection:
        connection.execute(
            sa.text(
                "UPDATE touch SET state = 'accepted', settled_at = due_at WHERE recipient_id <= "
                "(SELECT min(recipient_id) + 59 FROM touch)"
            )
        )
    clock.advance(3_600_000)
    found = await forecast(context)
    assert (found.launched, found.recipients, round(found.messages)) == (True, 120, 180)
    # 60 of the first email are left for an hour, and the others' second one is due six hours after their first.
    assert [(step.step, round(step.messages)) for step in found.steps] == [("hello", 60), ("again", 120)]
    assert hours_after(found) == pytest.approx(7, abs=0.4)
    advance(context.engine, "trial", clock.now())
    again = await forecast(context)
    assert hours_after(again) == pytest.approx(hours_after(found), abs=0.4)


async def test_a_warming_sender_takes_as_many_days_as_its_caps_do(warming: AppContext) -> None:
    campaign(warming, readers(25))
    found = await forecast(warming)
    by_day: dict[str, float] = {}
    for hour in found.hours:
        by_day[f"{hour.hour:%d}"] = by_day.get(f"{hour.hour:%d}", 0.0) + hour.messages
    # Five on the first day, ten on the second, and the second emails take part of the caps.
    assert by_day["30"] == pytest.approx(5, abs=0.1)
    assert by_day["01"] == pytest.approx(10, abs=0.1)
    assert any(hold.cause == f"warmup:other:{ADA}" for hold in found.holds)
    assert round(found.messages) == 50


async def test_overflow_goes_to_the_other_senders(warming: AppContext) -> None:
    campaign(warming, readers(14), more="overflow: {senders: [bob], within: 1d}")
    found = await forecast(warming)
    # Five of each email stay within the cap of the day; the second emails of bob's recipients are ada's again.
    first = found.steps[0]
    assert round(first.messages) == 14
    assert found.overflow[BOB] >= 9
    assert {hour.sender for hour in found.hours} == {ADA, BOB}


async def test_mail_of_other_campaigns_waits_at_the_same_gates(context: AppContext, clock: FakeClock) -> None:
    campaign(context, readers(60), name="other")
    launch(context.engine, "other", clock.now())
    campaign(context, readers(60))
    assert hours_after(await forecast(context)) == pytest.approx(8, abs=0.4)  # One alone takes 7 hours.


async def test_the_limits_and_pauses_of_the_queue_hold(context: AppContext) -> None:
    campaign(context, readers(60))
    queue = await context.queue(SEND_QUEUE)
    await queue.update_gate("queue", rate=Rate(count=30, per_ms=3_600_000, burst=1))
    assert hours_after(await forecast(context)) == pytest.approx(8, abs=0.4)
    await queue.pause_gate(str(GateName.sender(ADA)), None)
    found = await forecast(context, deadline=MONDAY + timedelta(days=1))
    assert (found.ends_at, found.in_time, found.late) == (None, False, 60)
    assert (found.holds[0].cause, found.holds[0].limit) == (f"sender:{ADA}", "paused until it is resumed")


async def test_other_values_of_settings_and_the_deadline(context: AppContext) -> None:
    campaign(context, readers(120, "gmail.com"))
    deadline = MONDAY + timedelta(hours=7)
    found = await forecast(context, deadline=deadline)
    assert not found.in_time
    assert found.late == pytest.approx(60, abs=10)
    faster = await forecast(context, deadline=deadline, changes={"sender.ada.rate": "600/1h"})
    assert faster.in_time
    assert faster.late == 0
    slower = await forecast(context, changes={"provider.google.rate": "30/1h"})
    assert hours_after(slower) == pytest.approx(10, abs=0.5)
    assert slower.holds[0].cause.startswith("provider:google:")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("sender.bobb.rate", "1/1s", "Did you mean 'bob'?"),
        ("sender.ada.rat", "1/1s", "Did you mean 'rate'?"),
        ("provider.gogle.rate", "1/1s", "Did you mean 'google'?"),
        ("sender.ada.rate", "fast", "'fast' is not a rate"),
        ("sender.ada.warmup.first", "10", "warmup is not set"),
        ("sender.ada", "10", "name the section and the field"),
        ("recipients", "10", "it begins with none of sender.NAME"),
        ("default.rate", "", "is not a rate"),
    ],
)
async def test_a_change_that_names_nothing_is_refused(context: AppContext, path: str, value: str, words: str) -> None:
    campaign(context, readers(1))
    with pytest.raises(PostroadError, match=f"--what-if {path}") as caught:
        await forecast(context, changes={path: value})
    assert words in f"{caught.value.message} {caught.value.remedy}"


async def test_a_campaign_that_ended_has_no_forecast(context: AppContext, clock: FakeClock) -> None:
    campaign(context, readers(1))
    launch(context.engine, "trial", clock.now())
    await campaigns.cancel(context.engine, await context.queue(SEND_QUEUE), "trial", clock.now())
    with pytest.raises(StateError, match="is cancelled: nothing of it is still to be sent"):
        await forecast(context)


async def test_without_the_queue_the_forecast_says_so(engine: sa.Engine, tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "postroad.toml").write_text(SETTINGS.format(redis="redis://127.0.0.1:1"))
    (tmp_path / "hello.txt").write_text("Hello.\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n")
    async with open_context(Settings.load(tmp_path / "postroad.toml"), clock, engine=engine) as context:
        campaign(context, readers(60))
        found = await forecast(context)
    assert hours_after(found) == pytest.approx(7, abs=0.3)
    assert "The queue cannot be reached" in found.notes[0]


def test_whole_messages_of_many_rows_have_the_sum_of_the_rows() -> None:
    rows = [HourForecast(hour=MONDAY, sender="ada", provider="google", messages=number) for number in (0.5, 1.4) * 200]
    whole = whole_messages(rows)
    assert sum(whole) == round(sum(row.messages for row in rows)) == 380
    assert all(abs(number - row.messages) <= 1 for number, row in zip(whole, rows, strict=True))
