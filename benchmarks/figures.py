"""Figures against their bars: decided here, shown as a table or as one object of JSON per line."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table


class Measure(Struct, frozen=True, kw_only=True):
    """What is measured, its unit in its name.

    ``bar`` is what must be reached: a ratio to the peer where there is one, else a value. ``at_least``
    says from which side.
    """

    name: str
    bar: float
    at_least: bool = False


class Figure(Struct, frozen=True, kw_only=True):
    """One line of the output. ``theirs`` None: there is no such peer, or it did not run."""

    measure: str
    ours: float
    peer: str | None
    theirs: float | None
    ratio: float | None
    bar: float
    ok: bool


def alone(measure: Measure, ours: float) -> Figure:
    return Figure(
        measure=measure.name,
        ours=_short(ours),
        peer=None,
        theirs=None,
        ratio=None,
        bar=measure.bar,
        ok=_reaches(measure, ours),
    )


def compared(measure: Measure, ours: float, peer: str, theirs: float | None) -> Figure:
    """Ours : theirs against the bar. A peer that did not run proves nothing, so its bar is not reached."""
    ratio = ours / theirs if theirs else None
    return Figure(
        measure=measure.name,
        ours=_short(ours),
        peer=peer,
        theirs=None if theirs is None else _short(theirs),
        ratio=None if ratio is None else _short(ratio),
        bar=measure.bar,
        ok=ratio is not None and _reaches(measure, ratio),
    )


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def json_line(figure: Figure) -> str:
    return msgspec.json.encode(figure).decode()


def table_of(title: str, figures: Sequence[Figure], measures: Sequence[Measure]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("measure", "ours", "peer", "theirs", "ours : theirs", "bar", "ok"):
        table.add_column(heading, justify="left" if heading in {"measure", "peer"} else "right")
    for row in rows(figures, measures):
        table.add_row(*row, style=None if row[-1] == "yes" else "red")
    return table


def markdown_of(figures: Sequence[Figure], measures: Sequence[Measure]) -> str:
    head = "| measure | ours | peer | theirs | ours : theirs | bar | ok |\n|---|---:|---|---:|---:|---:|---|\n"
    return head + "".join("| " + " | ".join(row) + " |\n" for row in rows(figures, measures))


def rows(figures: Sequence[Figure], measures: Sequence[Measure]) -> list[tuple[str, ...]]:
    """The figures in words. A measure may have several bars; which one held is in the figure."""
    at_least = {measure.name: measure.at_least for measure in measures}
    return [
        (
            figure.measure,
            _words(figure.ours),
            figure.peer or "",
            _words(figure.theirs),
            _words(figure.ratio),
            ("≥ " if at_least[figure.measure] else "≤ ") + _words(figure.bar) + (" ×" if figure.peer else ""),
            "yes" if figure.ok else "NO",
        )
        for figure in figures
    ]


def show(title: str, figures: Sequence[Figure], measures: Sequence[Measure], *, as_json: bool) -> None:
    if as_json:
        for figure in figures:
            print(json_line(figure), flush=True)
    else:
        Console(width=None if Console().is_terminal else 140).print(table_of(title, figures, measures))


def _reaches(measure: Measure, value: float) -> bool:
    return value >= measure.bar if measure.at_least else value <= measure.bar


def _short(value: float) -> float:
    """Four digits: more are noise."""
    return float(f"{value:.4g}")


def _words(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
