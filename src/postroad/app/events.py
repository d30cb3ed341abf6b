"""Exports events as files. Commands, the console and the API call this."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import IO, NamedTuple

from postroad.app.context import AppContext
from postroad.errors import UnavailableError, UsageError
from postroad.event_types import EventType
from postroad.events_out.export import EventFormat, Exported, ExportedSpan, export_events
from postroad.store.engine import read
from postroad.store.event_stream import EventHorizon, event_before, newest_event

HORIZON_WITHIN_S = 30.0
"""How long an export waits for open transactions that may insert events."""
HORIZON_EVERY_S = 0.05


class EventSelection(NamedTuple):
    """Events to export. ``since``: from this time on; ``until``: before this time; ``after``: after the cursor of an
    earlier export; None: no limit.
    """

    since: datetime | None = None
    until: datetime | None = None
    after: int | None = None
    types: frozenset[EventType] = frozenset(EventType)


async def export(
    context: AppContext,
    output: IO[bytes],
    kind: EventFormat,
    selection: EventSelection,
    report: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write events to an open file, in the order in which they were recorded.

    Args:
        context: The open parts.
        output: A binary file.
        kind: Its format.
        selection: Which events.
        report: Called with the rows that were read, and all.

    Returns:
        The number of events, and the cursor with which the next export continues.

    Raises:
        UsageError: The cursor is not one of this database, or the format needs a package that is not installed.
        UnavailableError: The database does not answer, or a transaction stays open.
    """
    since, until, after, types = selection

    def work() -> Exported:
        end = _settled(context)
        with read(context.engine) as connection:
            newest = newest_event(connection)
            start = 0 if since is None else event_before(connection, since)
        if after is not None and after > newest:
            raise UsageError(
                f"the cursor {after} is beyond the last event {newest} of this database",
                remedy="Use the cursor that the last export of this database printed, or --since.",
            )
        span = ExportedSpan(max(start, after or 0), end, since, until, types)
        return export_events(context.engine, span, output, kind, report)

    return await asyncio.to_thread(work)


def _settled(context: AppContext) -> int:
    """Return the id up to which the stream is final. Raises UnavailableError if a transaction stays open."""
    horizon = EventHorizon()
    deadline_s = time.monotonic() + HORIZON_WITHIN_S
    while True:
        end = horizon.find(context.engine)
        if not horizon.is_waiting:
            return end
        if time.monotonic() > deadline_s:
            raise UnavailableError(
                f"a transaction that may insert events is open for {HORIZON_WITHIN_S:g} s",
                remedy="Find it in pg_stat_activity, and run the command again.",
            )
        time.sleep(HORIZON_EVERY_S)
