"""A chart of rates with their intervals, one line each, in a fixed system of coordinates that scales with the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from postroad.console.charts import AxisTick

WIDTH: Final = 960
LEFT: Final = 160
RIGHT: Final = 24
TOP: Final = 8
ROW: Final = 34
AXIS: Final = 24
SCALES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Largest rates of the axis."""
TICKS: Final = 4
MAX_NAME: Final = 24


@dataclass(frozen=True, kw_only=True)
class NamedRate:
    """A rate with its interval, each from 0 to 1."""

    name: str
    rate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class IntervalLine:
    """One line of the chart: its label, the ends of the interval, and the place of the rate."""

    name: str
    y: float
    low: float
    high: float
    rate: float
    text: str


@dataclass(frozen=True, kw_only=True)
class IntervalChart:
    """The chart, ready to be drawn."""

    lines: Sequence[IntervalLine]
    marks: Sequence[AxisTick]
    bottom: float
    height: float
    width: int = WIDTH
    left: int = LEFT


def interval_chart(rates: Sequence[NamedRate]) -> IntervalChart:
    """Return the chart of rates. Its axis begins at 0 and contains all intervals."""
    top = next((scale for scale in SCALES if scale >= max((rate.high for rate in rates), default=1.0)), 1.0)

    def x(rate: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * rate / top, 1)

    bottom = TOP + ROW * len(rates)
    return IntervalChart(
        lines=[
            IntervalLine(
                name=rate.name if len(rate.name) <= MAX_NAME else f"{rate.name[: MAX_NAME - 1]}…",
                y=TOP + ROW * (number + 0.5),
                low=x(rate.low),
                high=x(rate.high),
                rate=x(rate.rate),
                text=f"{rate.name}: {rate.rate:.2%}, between {rate.low:.2%} and {rate.high:.2%}",
            )
            for number, rate in enumerate(rates)
        ],
        marks=[AxisTick(at=x(rate), label=f"{100 * rate:g} %") for rate in (top * n / TICKS for n in range(TICKS + 1))],
        bottom=bottom,
        height=bottom + AXIS,
    )
