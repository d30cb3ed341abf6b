"""Finds what would let a campaign end earlier: twice the limit of each gate that holds mail longest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from postroad.forecast.demand import utc
from postroad.forecast.report import HelpForecast
from postroad.forecast.simulate import WINDOW, SimulatedRun

HELPS: Final = 3
"""Gates that a forecast tries to double: those that hold mail longest."""


def find_helps(run: SimulatedRun, simulate: Callable[[Mapping[str, float]], SimulatedRun]) -> tuple[HelpForecast, ...]:
    """Return what would let the campaign end earlier. It is empty if the campaign does not end.

    Args:
        run: The simulation.
        simulate: Runs it again with factors of limits, by gate.
    """
    if run.ended is None:
        return ()
    causes: Counter[str] = Counter()
    for hold, seconds in run.held.items():
        if hold.cause != WINDOW:
            causes[hold.cause] += int(seconds)
    helps = []
    for gate, _ in causes.most_common(HELPS):
        ended = simulate({gate: 2.0}).ended
        if ended is not None and ended < run.ended:
            helps.append(
                HelpForecast(
                    change=f"twice the limit of {gate}",
                    ends_at=utc(ended),
                    hours_earlier=round((run.ended - ended) / 3600, 2),
                )
            )
    return tuple(sorted(helps, key=lambda one: one.ends_at))
