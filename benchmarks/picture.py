"""The costs of one message as a bar each, in SVG: for docs/explanation/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.costs import Cost

_WIDTH, _ROW, _LABELS = 760, 26, 80
_OURS, _REDIS = "#3b6ea5", "#c8553d"


def picture_of(costs: Sequence[Cost]) -> str:
    """Return a bar chart with one row per part: CPU of our process, followed by that of Redis, in µs."""
    scale = (_WIDTH - _LABELS - 70) / max(cost.ours_us + cost.redis_us for cost in costs)
    height = _ROW * (len(costs) + 1) + 16
    rows = "".join(_row(cost, 8 + n * _ROW, scale) for n, cost in enumerate(costs))
    legend_y = 8 + len(costs) * _ROW
    legend = _box(_LABELS, legend_y, 12, _OURS) + _text(_LABELS + 18, legend_y, "our process")
    legend += _box(_LABELS + 120, legend_y, 12, _REDIS) + _text(_LABELS + 138, legend_y, "Redis")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13"><title>CPU time of one message by part, µs</title>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{rows}{legend}</svg>\n'
    )


def _row(cost: Cost, y: int, scale: float) -> str:
    ours, redis = cost.ours_us * scale, cost.redis_us * scale
    total = f"{cost.ours_us + cost.redis_us:.0f}"
    return (
        _text(8, y, cost.part)
        + _box(_LABELS, y, ours, _OURS)
        + _box(_LABELS + ours, y, redis, _REDIS)
        + _text(_LABELS + ours + redis + 6, y, total)
    )


def _box(x: float, y: int, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="14" fill="{colour}"/>'


def _text(x: float, y: int, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y + 16}" fill="#222222">{escape(text)}</text>'
