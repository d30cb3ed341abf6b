"""Charges every millisecond of a delay to exactly one cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import NamedTuple

from msgspec import Struct

from postroad.explain.cause import DelayCause, label_of

_RANK = {cause: rank for rank, cause in enumerate(DelayCause)}


class DelayInterval(NamedTuple):
    """A time in which a cause held a message. ``detail``: which one of its kind, such as the name of a gate."""

    cause: DelayCause
    detail: str
    start_ms: int
    end_ms: int


class Charge(Struct, frozen=True, kw_only=True):
    """The time that one cause took. ``label``: in words."""

    cause: DelayCause
    detail: str
    label: str
    ms: int


def charge(start_ms: int, end_ms: int, intervals: Iterable[DelayInterval]) -> list[Charge]:
    """Charge the time from start to end to causes. The sum is exactly ``end_ms - start_ms``, or 0 if that is negative.

    Of several causes at one time, the first in the order of `DelayCause` is charged. A time without a cause is charged
    to `DelayCause.TURN`.

    Args:
        start_ms: When the message was due, in ms since the epoch.
        end_ms: When it was accepted or ended, or the current time.
        intervals: When causes held it, in any order. They may overlap and exceed the delay.

    Returns:
        The charges, the longest first.
    """
    clipped = sorted(
        (max(one.start_ms, start_ms), min(one.end_ms, end_ms), _RANK[one.cause], one.detail, one.cause)
        for one in intervals
        if max(one.start_ms, start_ms) < min(one.end_ms, end_ms)
    )
    cuts = sorted({start_ms, end_ms, *(one[0] for one in clipped), *(one[1] for one in clipped)})
    totals: Counter[tuple[DelayCause, str]] = Counter()
    active: list[tuple[int, str, int, DelayCause]] = []
    upcoming = 0
    for begin, end in pairwise(cuts) if start_ms < end_ms else ():
        while upcoming < len(clipped) and clipped[upcoming][0] <= begin:
            _, until, rank, detail, cause = clipped[upcoming]
            heappush(active, (rank, detail, until, cause))
            upcoming += 1
        while active and active[0][2] <= begin:
            heappop(active)
        key = (active[0][3], active[0][1]) if active else (DelayCause.TURN, "")
        totals[key] += end - begin
    return to_charges(totals)


def to_charges(totals: Counter[tuple[DelayCause, str]]) -> list[Charge]:
    """Return the charges of sums by cause and detail, the longest first."""
    ordered = sorted(totals.items(), key=lambda item: (-item[1], _RANK[item[0][0]], item[0][1]))
    return [Charge(cause=cause, detail=detail, label=label_of(cause, detail), ms=ms) for (cause, detail), ms in ordered]


def total_ms(charges: Sequence[Charge]) -> int:
    """Return the sum of charges, in ms."""
    return sum(one.ms for one in charges)
