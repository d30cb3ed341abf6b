"""When a touch is due: a time of day in the recipient's own zone, right on the days when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo


def due_at(after: datetime, at: time | None, zone: ZoneInfo) -> datetime:
    """Return the first instant, not before ``after``, at which a clock in the zone shows ``at``. None: ``after``.

    A time that the zone skips in spring is due as much later as the clocks jump; of one that comes twice in autumn the
    first is meant.
    """
    if at is None:
        return after.astimezone(UTC)
    day = after.astimezone(zone).date() - timedelta(days=1)
    while True:
        # fold=0 reads a skipped time with the offset from before the jump, and of two the first: PEP 495.
        due = datetime.combine(day, at, tzinfo=zone).astimezone(UTC)
        if due >= after:
            return due
        day += timedelta(days=1)
