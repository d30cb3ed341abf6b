"""A warmup in words and pictures, for terminals and for run pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log10

from postroad.printable import escape_active_markdown
from postroad.warmup.simulate import SimulatedDay

WIDTH = 40


def bar(cap: int, planned: int, most: int) -> str:
    """A cap as a bar, and the plan's as a mark behind it. Each tenfold is as wide as the one before."""
    scale = WIDTH / log10(max(most, 10))
    filled = round(log10(max(cap, 1)) * scale)
    mark = round(log10(max(planned, 1)) * scale)
    line = "█" * filled
    return line if mark <= filled else line.ljust(mark) + "│"


def picture(days: Sequence[SimulatedDay]) -> list[str]:
    """One line for each day: number, cap, bar, and why it did not grow."""
    most = max((max(day.planned, day.day.cap) for day in days), default=1)
    wide = WIDTH + 2
    return [
        f"{each.number:>3} {each.day.cap:>11,} {bar(each.day.cap, each.planned, most):<{wide}} {each.day.move}".rstrip()
        for each in days
    ]


def planned_picture(caps: Sequence[int]) -> list[str]:
    """Return one line for each day of a plan: number, cap and bar."""
    most = max(caps, default=1)
    return [f"{number:>3} {cap:>11,} {bar(cap, 0, most)}" for number, cap in enumerate(caps, start=1)]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as markdown shows it. What is in a cell stays in it."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(cell: object) -> str:
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return escape_active_markdown(str("–" if cell is None else cell))
