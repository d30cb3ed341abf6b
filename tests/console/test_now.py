"""Now: what waits, leaves and came to an outcome, what runs, and what a person has to do."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from postroad.console.charts import NamedValues, nice_maximum, time_chart
from postroad.console.findings import FindingsWatch
from postroad.console.screens.now import traffic_by_hour, traffic_chart, traffic_since
from postroad.doctor import Check
from postroad.queue import Health, Queue, this_process
from postroad.settings import AccessRole
from postroad.store.engine import write
from postroad.store.heartbeat import ADVANCE, record_heartbeat
from postroad.store.traffic import MinuteTraffic
from tests.console.kit import Console, open_console
from tests.delivery.queue_of_touches import lane, queued_touches
from tests.kit.clock import FakeClock

NOW = datetime(2027, 3, 1, 12, 34, 56, tzinfo=UTC)


async def test_it_shows_what_is_queued_what_holds_it_and_what_runs(console: Console, redis_url: str) -> None:
    async with Queue.open(redis_url, "email:send") as queue:
        await queued_touches(console.engine, queue, 7)
        await queue.pause_gate(lane().gates[0], None)
        await queue.claim("w", want=10, lease_ms=60_000, nonce="1")  # It finds the gate closed.
        await queue.beat(this_process("worker", "w<1>"))
        with write(console.engine) as connection:
            record_heartbeat(connection, ADVANCE, console.parts.now() - timedelta(minutes=3))
        http = await console.client(AccessRole.VIEW)
        page = (await http.get("/")).text
    assert re.search(r"In the queue</dt>\s*<dd>(<a [^>]*>)?7\D", page)
    assert lane().gates[0] in page
    assert "paused" in page
    assert "w&lt;1&gt;" in page
    assert "alive" in page
    assert "Running for" in page, "how old each process is"
    assert "3 min ago" in page


async def test_findings_are_the_worst_first_with_their_remedies(console: Console) -> None:
    http = await console.client(AccessRole.VIEW)
    page = (await http.get("/")).text
    assert page.index("worker email:send") < page.index("12,000 events")
    assert "no worker &lt;b&gt;lives&lt;/b&gt;" in page
    assert "Start one:\n  x" in page
    assert "revision current" not in page, "what passes is not listed"
    assert "/now/check" not in page
    operator = await console.client(AccessRole.OPERATE)
    assert "/now/check" in (await operator.get("/")).text
    assert (await operator.post("/now/check", data={})).status_code == 303


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_queue_that_is_unavailable_is_a_finding_and_no_error(engine: sa.Engine, tmp_path: Path) -> None:
    async with open_console(engine, "redis://127.0.0.1:1", tmp_path, checks=[]) as console:
        http = await console.client(AccessRole.VIEW)
        reply = await http.get("/")
    assert reply.status_code == 200
    assert "fails" in reply.text
    assert "Due</dt>" in reply.text, "the ledger's numbers are shown"


async def test_checks_that_block_or_fail_keep_no_page_waiting() -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def failing() -> list[Check]:
        loop.call_soon_threadsafe(begun.set)
        raise RuntimeError("a check of another kind")

    watch = FindingsWatch(FakeClock(), failing)
    await watch.refresh()
    assert begun.is_set()
    assert watch.latest is None

    async def passing() -> list[Check]:
        return [Check(part="a", health=Health.OK, seen="x"), Check(part="b", health=Health.FAIL, seen="y")]

    watch = FindingsWatch(FakeClock(), passing)
    first = watch.refresh()
    assert watch.refresh() is first, "one run at a time"
    await first
    assert watch.latest is not None
    assert [check.part for check in watch.latest.checks] == ["b", "a"]


def test_the_chart_has_every_outcome_of_its_span_once() -> None:
    since = traffic_since(NOW)
    assert since == datetime(2027, 2, 28, 12, 40, tzinfo=UTC)
    minutes = [
        MinuteTraffic(since - timedelta(minutes=1), 1_000, 0, 0),  # before it
        MinuteTraffic(since, 10, 0, 0),
        MinuteTraffic(since + timedelta(minutes=9), 20, 3, 0),
        MinuteTraffic(NOW.replace(second=0), 70, 0, 4),
    ]
    chart = traffic_chart(minutes, since, ZoneInfo("UTC"))
    assert [(series.name, round(series.total * 10)) for series in chart.series] == [
        ("accepted", 100),
        ("deferred", 3),
        ("bounced", 4),
    ]
    assert [tick.label for tick in chart.rows] == ["0", "2", "4", "6", "8"]
    hours = traffic_by_hour(minutes)
    assert [(row.at.hour, row.accepted) for row in hours] == [(12, 70), (12, 1_030)]


@pytest.mark.parametrize(
    ("value", "top"), [(0, 4), (3.2, 4), (5, 8), (9, 12), (101, 120), (950, 1_000), (7_000, 8_000)]
)
def test_the_scale_ends_at_a_round_number(value: float, top: float) -> None:
    assert nice_maximum(value) == top


def test_the_labels_follow_the_clock_of_the_zone() -> None:
    """On 2027-03-28 the clock of Berlin skips from 02:00 to 03:00."""
    since = datetime(2027, 3, 27, 20, 0, tzinfo=UTC)
    line = NamedValues(name="x", css_class="", values=[0.0] * 24)
    chart = time_chart([line], since, timedelta(hours=1), ZoneInfo("Europe/Berlin"))
    assert chart.is_empty
    labels = [tick.label for tick in chart.columns]
    assert labels == ["21:00", "00:00", "03:00", "06:00", "09:00", "12:00", "15:00", "18:00", "21:00"]
