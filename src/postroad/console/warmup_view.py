"""How warmups are shown: links, colours of decisions, and the curve next to the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import islice
from typing import Final

from postroad.console.charts import NamedValues, TimeChart, day_chart
from postroad.console.page_url import page_url
from postroad.warmup.decide import Move
from postroad.warmup.identity import WarmingIdentity
from postroad.warmup.plan import plan_for
from postroad.warmup.simulate import SimulatedDay

CHARTED: Final = 60
"""Days of a chart, the newest ones."""
AHEAD: Final = 30
"""Days of the plan that are shown before the first decision."""
MOVE_TONES: Final[Mapping[Move, str]] = {
    Move.START: "info",
    Move.GROW: "good",
    Move.HOLD: "",
    Move.SLOW: "warn",
    Move.PAUSE: "bad",
    Move.IDLE: "warn",
    Move.RESTART: "info",
    Move.MISSED: "warn",
    Move.OVERRIDE: "info",
}


def warmup_url(*path: str, **query: object) -> str:
    """Return the URL of the warmups, or of a page below it, with query parameters that are not None."""
    return page_url("warmup", *path, **query)


def curve_chart(days: Sequence[SimulatedDay]) -> TimeChart:
    """Return the chart of the newest days: the caps next to the plan's, and what was delivered before the last day."""
    shown = days[-CHARTED:]
    lines = [
        NamedValues(name="cap", css_class="", values=[each.day.cap for each in shown]),
        NamedValues(name="plan", css_class="plan", values=[each.planned for each in shown]),
        NamedValues(name="delivered", css_class="good", values=[each.day.counts.accepted for each in shown[:-1]]),
    ]
    return day_chart(lines, [each.day.day for each in shown])


def plan_chart(identity: WarmingIdentity, provider: str, first: date) -> tuple[TimeChart, list[tuple[date, int]]]:
    """Return the plan's caps from a day on as a chart, and as days with their caps."""
    start = max(first, identity.warmup.start or first)
    caps = list(islice(plan_for(identity.warmup, provider).caps(), AHEAD))
    rows = [(start + timedelta(days=number), cap) for number, cap in enumerate(caps)]
    return day_chart([NamedValues(name="plan", css_class="plan", values=caps)], [day for day, _ in rows]), rows
