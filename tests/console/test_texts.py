"""How pages write times: those of texts are in the zone of the page, and each day of a chart is labelled once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from postroad.console.hour_chart import HourBar, hour_chart
from postroad.console.templates import Templates
from tests.kit.clock import FakeClock

BERLIN = ZoneInfo("Europe/Berlin")
FIRST = datetime(2026, 11, 30, 23, tzinfo=UTC)


def labels(hours: int) -> list[str]:
    bars = [HourBar(at=FIRST, values=(5,)), HourBar(at=FIRST + timedelta(hours=hours), values=(7,))]
    chart = hour_chart(bars, [("messages", "info")], BERLIN)
    assert chart is not None
    return [label.text for label in chart.times]


def test_times_of_a_text_are_in_the_zone_of_the_page() -> None:
    templates = Templates((), BERLIN, FakeClock(0))
    text = "decided at 2026-12-02 23:01:10 UTC; the window opens at 2026-07-02 09:00 there, 2026-07-02 07:00 UTC"
    assert templates.local_times(text) == (
        "decided at 2026-12-03 00:01 CET; the window opens at 2026-07-02 09:00 there, 2026-07-02 09:00 CEST"
    )


def test_each_day_of_a_chart_is_labelled_once() -> None:
    assert labels(97) == ["01 Dec", "02 Dec", "03 Dec", "04 Dec", "05 Dec"]
    assert len(set(labels(2_000))) == len(labels(2_000)) <= 7
    assert labels(20)[:2] == ["00:00", "04:00"]
