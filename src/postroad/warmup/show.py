"""Draws a warmup as text, for terminals and for run pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log10

from postroad.printable import escape_active_markdown
from postroad.warmup.simulate import SimulatedDay

WIDTH = 40


def draw_bar(cap: int, planned: int, largest: int) -> str:
    """Draw a cap as a bar on a logarithmic scale, with a mark at the plan's cap if that is larger."""
    scale = WIDTH / log10(max(largest, 10))
    filled = round(log10(max(cap, 1)) * scale)
    mark = round(log10(max(planned, 1)) * scale)
    line = "█" * filled
    return line if mark <= filled else line.ljust(mark) + "│"


def draw_days(days: Sequence[SimulatedDay]) -> list[str]:
    """Draw a line for each simulated day: number, cap, bar, and move."""
    largest = max((max(day.planned, day.day.cap) for day in days), default=1)
    lines = []
    for simulated in days:
        cap, move = simulated.day.cap, simulated.day.move
        bar = draw_bar(cap, simulated.planned, largest)
        lines.append(f"{simulated.number:>3} {cap:>11,} {bar:<{WIDTH + 2}} {move}".rstrip())
    return lines


def draw_plan(caps: Sequence[int]) -> list[str]:
    """Draw a line for each day of a plan: number, cap and bar."""
    largest = max(caps, default=1)
    return [f"{number:>3} {cap:>11,} {draw_bar(cap, 0, largest)}" for number, cap in enumerate(caps, start=1)]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown. Cells are escaped."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(cell: object) -> str:
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return escape_active_markdown(str("–" if cell is None else cell))
