"""A chart of hours: stacked bars, made on the server, in a fixed system of coordinates that scales with the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

WIDTH: Final = 960
HEIGHT: Final = 200
LEFT: Final = 56
BOTTOM: Final = 24
TOP: Final = 12
MAX_BARS: Final = 240
"""At most so many bars: more hours are added up to bars of several hours."""
LABELS: Final = 6


@dataclass(frozen=True, kw_only=True)
class HourBar:
    """The numbers of one hour. ``values``: one for each series, from the bottom up."""

    at: datetime
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ChartRect:
    """A rectangle of a bar."""

    x: float
    y: float
    width: float
    height: float
    tone: str


@dataclass(frozen=True, kw_only=True)
class ChartLabel:
    """A text at a place. ``line``: whether a grid line goes with it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class HourChart:
    """A chart, ready to be drawn. ``step_hours``: hours of each bar. ``rows``: the numbers that it shows."""

    rects: Sequence[ChartRect]
    marks: Sequence[ChartLabel]
    times: Sequence[ChartLabel]
    rows: Sequence[HourBar]
    series: Sequence[tuple[str, str]]
    step_hours: int
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    base: int = HEIGHT - BOTTOM


def hour_chart(rows: Sequence[HourBar], series: Sequence[tuple[str, str]], zone: ZoneInfo) -> HourChart | None:
    """Return the chart of some hours; hours that are missing between them are empty.

    Args:
        rows: The hours, in order.
        series: Label and tone of each value.
        zone: Zone of the labels of the time.

    Returns:
        The chart. None: there are no hours.
    """
    if not rows:
        return None
    first, last = rows[0].at, rows[-1].at
    hours = int((last - first) / timedelta(hours=1)) + 1
    step = -(-hours // MAX_BARS)
    bars = [[0.0] * len(series) for _ in range(-(-hours // step))]
    for row in rows:
        slot = bars[int((row.at - first) / timedelta(hours=step))]
        for index, value in enumerate(row.values):
            slot[index] += value
    top = nice_top(max(sum(bar) for bar in bars))
    scale = (HEIGHT - BOTTOM - TOP) / top
    pitch = (WIDTH - LEFT) / max(len(bars), 12)
    return HourChart(
        rects=_rects(bars, series, pitch, scale),
        marks=[
            ChartLabel(x=LEFT - 8, y=HEIGHT - BOTTOM - share * top * scale, text=f"{share * top:,.10g}")
            for share in (0.0, 0.5, 1.0)
        ],
        times=_times(first, step, len(bars), pitch, zone),
        rows=rows,
        series=series,
        step_hours=step,
    )


def _rects(
    bars: Sequence[Sequence[float]], series: Sequence[tuple[str, str]], pitch: float, scale: float
) -> list[ChartRect]:
    rects = []
    gap = 1.0 if pitch > 4 else 0.0
    for number, bar in enumerate(bars):
        y = float(HEIGHT - BOTTOM)
        for value, (_, tone) in zip(bar, series, strict=True):
            if value:
                height = max(value * scale, 0.75)
                y -= height
                x = LEFT + number * pitch
                rects.append(
                    ChartRect(
                        x=round(x, 2),
                        y=round(y, 2),
                        width=round(pitch - gap, 2),
                        height=round(height, 2),
                        tone=tone,
                    )
                )
    return rects


def _times(first: datetime, step: int, bars: int, pitch: float, zone: ZoneInfo) -> list[ChartLabel]:
    """Label hours, or the begin of days if there are more than two."""
    times = [(first + timedelta(hours=number * step)).astimezone(zone) for number in range(bars)]
    form, places = "%H:%M", list(range(bars))
    if bars * step > 48:
        form = "%d %b"
        before = [first.astimezone(zone) - timedelta(hours=step), *times]
        places = [number for number in places if times[number].date() != before[number].date()]
    return [
        ChartLabel(x=round(LEFT + number * pitch, 2), y=HEIGHT - 6, text=f"{times[number]:{form}}")
        for number in places[:: -(-len(places) // LABELS) or 1]
    ]


def nice_top(largest: float) -> float:
    """Return the top of a scale: a round number that is not below the largest value, and even if it is over one."""
    magnitude = 1.0
    while True:
        for factor in (1, 2, 4, 6, 8):
            if factor * magnitude >= largest:
                return factor * magnitude
        magnitude *= 10
