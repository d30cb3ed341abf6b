"""Geometry of charts: what a template draws as SVG, with attributes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import ceil, floor, log10
from zoneinfo import ZoneInfo

WIDTH = 960
HEIGHT = 190
LEFT = 44
BOTTOM = 22
TOP = 8
TICKS = 4
DAY_LABELS = 10
"""Days with a label, at most."""


@dataclass(frozen=True, kw_only=True)
class AxisTick:
    """A line of the grid with its label. ``at``: its x or y."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class ChartSeries:
    """One line. ``line`` and ``area``: values of the attribute `d` of a path."""

    name: str
    css_class: str
    line: str
    area: str
    total: float


@dataclass(frozen=True, kw_only=True)
class TimeChart:
    """A chart over time.

    Attributes:
        series: Its lines.
        rows: Its horizontal lines.
        columns: Its times.
        is_empty: Whether all values are 0.
    """

    series: Sequence[ChartSeries]
    rows: Sequence[AxisTick]
    columns: Sequence[AxisTick]
    is_empty: bool
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True, kw_only=True)
class NamedValues:
    """Values of a line, one for each bucket, oldest first."""

    name: str
    css_class: str
    values: Sequence[float]


def time_chart(lines: Sequence[NamedValues], since: datetime, step: timedelta, zone: ZoneInfo) -> TimeChart:
    """Return the chart of values in buckets of equal length.

    Args:
        lines: The values. All lines have the same number of buckets, at least one.
        since: Begin of the first bucket.
        step: Length of a bucket.
        zone: Zone of the labels.

    Returns:
        The chart.
    """
    count = len(lines[0].values)
    top = nice_maximum(max((value for line in lines for value in line.values), default=0))
    inner, tall = WIDTH - LEFT, HEIGHT - BOTTOM - TOP

    def x(place: float) -> float:
        return LEFT + inner * place / count

    def y(value: float) -> float:
        return TOP + tall * (1 - value / top)

    series = []
    for line in lines:
        points = [f"{x(place + 0.5):.1f} {y(value):.1f}" for place, value in enumerate(line.values)]
        path = "M" + "L".join(points)
        area = f"{path}L{x(count - 0.5):.1f} {y(0):.1f}L{x(0.5):.1f} {y(0):.1f}Z"
        series.append(
            ChartSeries(name=line.name, css_class=line.css_class, line=path, area=area, total=sum(line.values))
        )
    ticks = [top * place / TICKS for place in range(TICKS + 1)]
    return TimeChart(
        series=series,
        rows=[AxisTick(at=round(y(value), 1), label=f"{value:,g}") for value in ticks],
        columns=[AxisTick(at=round(x(place), 1), label=label) for place, label in _times(since, step, count, zone)],
        is_empty=not any(value for line in lines for value in line.values),
    )


def day_chart(lines: Sequence[NamedValues], days: Sequence[date]) -> TimeChart:
    """Return the chart of a value of each day as steps, on a scale whose every tenfold has the same height.

    Args:
        lines: The values: one for each day from the first on. A line may end early. What is below 1 is at the bottom.
        days: The days, at least one, in order.

    Returns:
        The chart.
    """
    largest = max((value for line in lines for value in line.values), default=0)
    tenfolds = max(ceil(log10(max(largest, 1))), 1)
    width, tall = (WIDTH - LEFT) / len(days), HEIGHT - BOTTOM - TOP

    def x(place: float) -> str:
        return f"{LEFT + width * place:.1f}"

    def y(value: float) -> float:
        return round(TOP + tall * (1 - log10(max(value, 1)) / tenfolds), 1)

    series = []
    for line in filter(lambda line: line.values, lines):
        steps = [f"{x(place)} {y(value)}H{x(place + 1)}" for place, value in enumerate(line.values)]
        path = "M" + "L".join(steps)
        area = f"{path}V{y(0)}H{LEFT}Z"
        series.append(
            ChartSeries(name=line.name, css_class=line.css_class, line=path, area=area, total=sum(line.values))
        )
    every = ceil(len(days) / DAY_LABELS)
    return TimeChart(
        series=series,
        rows=[AxisTick(at=y(10**power), label=_tenfold(power)) for power in range(tenfolds + 1)],
        columns=[
            AxisTick(at=float(x(place + 0.5)), label=f"{days[place]:%d %b}") for place in range(0, len(days), every)
        ],
        is_empty=False,
    )


def _tenfold(power: int) -> str:
    """Return a power of ten as text that fits next to a chart, such as ``100k``."""
    return f"{10 ** (power % 3)}{('', 'k', 'M', 'G')[power // 3]}"


def nice_maximum(value: float) -> float:
    """Return a round number that is at least the value, and that divides into four whole steps from 4 on."""
    if value <= TICKS:
        return TICKS
    magnitude: float = 10.0 ** floor(log10(value))
    for factor in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10):
        candidate = factor * magnitude
        if candidate >= value and candidate % TICKS == 0:
            return candidate
    return ceil(value / TICKS) * TICKS


def _times(since: datetime, step: timedelta, count: int, zone: ZoneInfo) -> list[tuple[float, str]]:
    """Return the place and label of every third full hour, or of every day for spans of more than two days."""
    span = step * count
    every = timedelta(hours=3) if span <= timedelta(days=2) else timedelta(days=1)
    # In UTC: an hour of the local clock may be missing or come twice.
    first = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    labels = []
    for hour in range(int(span / timedelta(hours=1)) + 2):
        at = (first + timedelta(hours=hour)).astimezone(zone)
        place = (at.astimezone(UTC) - since.astimezone(UTC)) / step
        wanted = at.hour % 3 == 0 if every == timedelta(hours=3) else at.hour == 0
        if wanted and 0 <= place <= count - 0.02 * count:
            labels.append((place, f"{at:%H:%M}" if every == timedelta(hours=3) else f"{at:%d %b}"))
    return labels
