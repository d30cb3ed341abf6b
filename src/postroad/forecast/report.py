"""The forecast of a campaign, as commands show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from postroad.forecast.simulate import SimulatedRun


@dataclass(frozen=True, kw_only=True)
class HourForecast:
    """Messages that one sender sends to one provider in one hour."""

    hour: datetime
    sender: str
    provider: str
    messages: float


@dataclass(frozen=True, kw_only=True)
class StepForecast:
    """Messages of one email step, and when the first and the last leave."""

    step: str
    messages: float
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, kw_only=True)
class HoldForecast:
    """What holds mail: a gate with its limit, or the campaign's hours; and for how many message hours."""

    cause: str
    limit: str
    message_hours: float


@dataclass(frozen=True, kw_only=True)
class HelpForecast:
    """A change that would let the campaign end earlier, and when it would end."""

    change: str
    ends_at: datetime
    hours_earlier: float


@dataclass(frozen=True, kw_only=True)
class CampaignForecast:
    """When the mail of a campaign leaves, if nothing is refused and every recipient stays in the sequence.

    ``ends_at`` None: it does not end, as long as what holds it is not removed. ``late``: messages after the deadline.
    """

    campaign: str
    launched: bool
    made_at: datetime
    recipients: int
    messages: float
    ends_at: datetime | None
    deadline: datetime | None
    late: float
    overflow: Mapping[str, float]
    steps: tuple[StepForecast, ...]
    holds: tuple[HoldForecast, ...]
    helps: tuple[HelpForecast, ...]
    hours: tuple[HourForecast, ...]
    notes: tuple[str, ...]

    @property
    def in_time(self) -> bool:
        """Whether everything is sent by the deadline, if there is one."""
        return self.ends_at is not None and (self.deadline is None or self.ends_at <= self.deadline)


def whole_messages(hours: Sequence[HourForecast]) -> list[int]:
    """Return the messages of each row as a whole number. Their sum is the sum of the rows, rounded.

    Each row alone would be rounded by up to half a message, and the sum of many rows would be wrong by many.
    """
    shown: list[int] = []
    total = 0.0
    for row in hours:
        before, total = total, total + row.messages
        shown.append(round(total) - round(before))
    return shown


def late_messages(run: SimulatedRun, deadline: datetime | None) -> float:
    """Return the messages after the deadline. Those of its own hour are counted in proportion."""
    if deadline is None:
        return 0.0
    at = deadline.timestamp()
    late = sum(messages * min(max((hour + 3600 - at) / 3600, 0.0), 1.0) for (hour, _, _), messages in run.hours.items())
    return round(late + run.waiting, 2)


def holds_of(held: Sequence[tuple[tuple[str, str], float]]) -> tuple[HoldForecast, ...]:
    """Return the causes, those that hold mail longest first. A cap that changes from day to day is one cause."""
    merged: defaultdict[str, float] = defaultdict(float)
    shown: dict[str, str] = {}
    for (cause, limit), seconds in held:
        merged[cause] += seconds
        shown.setdefault(cause, limit)
    ordered = sorted(merged, key=lambda cause: -merged[cause])
    return tuple(
        HoldForecast(cause=cause, limit=shown[cause], message_hours=round(merged[cause] / 3600, 2)) for cause in ordered
    )
