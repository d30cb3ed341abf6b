"""Enrols recipients in a running journey as they join its audience, do something, or their date comes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from postroad.campaign.entry import CampaignEntry, Entrant, EntryKind
from postroad.campaign.journey_context import PassContext
from postroad.campaign.journey_facts import DatabaseFacts
from postroad.campaign.journey_pass import enrol
from postroad.campaign.segment import Segment
from postroad.segment.sql import event_sql
from postroad.store.campaign import Campaign, find_campaign, set_entry_cursor
from postroad.store.engine import read, write
from postroad.store.enrolments.pending import PAGE, last_entries
from postroad.store.entrants import (
    LATE_IDS,
    Candidate,
    EntryEvents,
    EventPlace,
    EventWhere,
    Joined,
    events_that_came,
    joined_members,
    recorded_events,
    running_import,
    settled_until,
)
from postroad.store.planning import members_after

SCAN_PAGES = 40
"""Pages of the audience that a pass reads for an entry on a date."""

SCAN_EVERY = timedelta(hours=1)
"""A scan for dates begins at most so often. A pass after that continues it."""

_LAST_ID = 2**62


class EntryCursor(msgspec.Struct, frozen=True):
    """How far the entry of a campaign was read.

    ``at``: time of joining of the last member, or the time up to which dates or events were looked at. ``id``: the last
    event, or the last recipient. ``floor``: the last event at the launch. ``since``: an unfinished scan looks at dates
    after it.
    """

    at: datetime
    id: int = 0
    floor: int = 0
    since: datetime | None = None


def first_cursor(now: datetime, last_event: int) -> dict[str, Any]:
    """Return the cursor of a campaign that is being launched: nothing before counts."""
    return _to_row(EntryCursor(at=now, id=last_event, floor=last_event))


def _to_row(cursor: EntryCursor) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(cursor)
    return row


def enrol_entrants(context: PassContext) -> int:
    """Enrol the recipients who entered since the last pass. Idempotent, and bounded by what is new.

    Returns:
        The number of planned touches.
    """
    with read(context.engine) as connection:
        campaign = find_campaign(connection, context.name)
    entry = CampaignEntry.of(campaign)
    if not entry.stays_open or campaign.entry_closed_at is not None or campaign.launched_at is None:
        return 0
    cursor = msgspec.convert(campaign.entry_cursor, EntryCursor)
    match entry.kind:
        case EntryKind.JOINED:
            return _enrol_joined(context, campaign, entry, cursor)
        case EntryKind.EVENT:
            return _enrol_by_event(context, campaign, entry, cursor)
        case EntryKind.DATE:
            return _enrol_by_date(context, campaign, entry, cursor)
        case EntryKind.LAUNCH | EntryKind.API:
            return 0


def _enrol_joined(context: PassContext, campaign: Campaign, entry: CampaignEntry, cursor: EntryCursor) -> int:
    """Enrol who joined. What may have been committed late is read again, from the time that is settled."""
    launched_at = campaign.launched_at
    assert launched_at is not None  # noqa: S101  (checked by the caller)
    with read(context.engine) as connection:
        settled = settled_until(connection, campaign.audience_id, context.now)
        since = running_import(connection, campaign.audience_id, launched_at) if entry.at_launch else None
    # The members that an import committed after the freeze joined when it began, which was before the launch.
    floor = Joined(launched_at, _LAST_ID) if since is None else Joined(since, 0)
    place = max(min(Joined(cursor.at, cursor.id), Joined(settled, 0)), floor)
    planned = 0
    while True:
        with read(context.engine) as connection:
            page = joined_members(connection, campaign.audience_id, place, PAGE)
        if not page:
            break
        planned += _enrol_candidates(context, entry, page)
        place = Joined(page[-1].at, page[-1].key)
    if place > Joined(cursor.at, cursor.id):
        _keep(context, EntryCursor(at=place.at, id=place.recipient_id))
    return planned


def _enrol_by_event(context: PassContext, campaign: Campaign, entry: CampaignEntry, cursor: EntryCursor) -> int:
    """Enrol members by their events. Late commits are read again, and what was recorded early is read at its time."""
    after, last, launched_at, planned = max(cursor.id - LATE_IDS, cursor.floor), cursor.id, campaign.launched_at, 0
    assert entry.condition is not None and launched_at is not None  # noqa: S101, PT018  (set for an event)
    where = EventWhere(*event_sql(entry.condition, context.engine.dialect.name, context.journey.scope(context.now)))
    events = EntryEvents(campaign.audience_id, entry.event, where)
    while True:
        with read(context.engine) as connection:
            page = recorded_events(connection, events, after, PAGE)
        if page.last is None:
            break
        # History that was imported later does not count.
        planned += _enrol_candidates(context, entry, [one for one in page.members if one.at >= launched_at])
        after = last = page.last.id
    place = EventPlace(cursor.at, _LAST_ID)
    while True:
        with read(context.engine) as connection:
            page = events_that_came(connection, events, place, context.now, cursor.id, PAGE)
        if page.last is None:
            break
        planned += _enrol_candidates(context, entry, page.members)
        place = page.last
    if last > cursor.id or context.now - cursor.at >= SCAN_EVERY:
        _keep(context, msgspec.structs.replace(cursor, id=last, at=max(cursor.at, context.now)))
    return planned


def _enrol_by_date(context: PassContext, campaign: Campaign, entry: CampaignEntry, cursor: EntryCursor) -> int:
    """Enrol members whose date came since the scan before. A pass reads some pages, and the next one continues."""
    if cursor.since is None:
        if context.now - cursor.at < SCAN_EVERY:
            return 0
        cursor = EntryCursor(at=context.now, since=cursor.at)
    since, until, after = cursor.since, cursor.at, cursor.id
    assert since is not None and entry.date is not None  # noqa: S101, PT018  (set for a scan of dates)
    planned = 0
    for _ in range(SCAN_PAGES):
        with read(context.engine) as connection:
            members = members_after(connection, campaign.audience_id, after, PAGE)
            facts = DatabaseFacts(connection, context.journey.scope(context.now))
            dates = facts.dates(entry.date, [member.recipient_id for member in members])
        came = {id_: at for id_, at in dates.items() if since < at <= until}
        candidates = [
            Candidate(came[one.recipient_id], one.recipient_id, one) for one in members if one.recipient_id in came
        ]
        planned += _enrol_candidates(context, entry, candidates)
        after = members[-1].recipient_id if len(members) == PAGE else 0
        if after == 0:
            break
    _keep(context, EntryCursor(at=until, id=after, since=since if after else None))
    return planned


def _enrol_candidates(context: PassContext, entry: CampaignEntry, candidates: Sequence[Candidate]) -> int:
    """Enrol those candidates who may enter now and belong to the segment. Returns the number of planned touches."""
    if not candidates:
        return 0
    ids = sorted({one.member.recipient_id for one in candidates})
    with read(context.engine) as connection:
        last = last_entries(connection, context.journey.campaign_id, ids)
        entrants: dict[int, Entrant] = {}
        for one in candidates:
            number = entry.number(last.get(one.member.recipient_id), one.at)
            if number is not None:  # The first event of a recipient counts.
                entrants.setdefault(one.member.recipient_id, Entrant(one.member, one.at, number))
        segment = Segment.of(find_campaign(connection, context.name), context.now)
        met = segment.meeting(connection, list(entrants)) if entrants else ()
    entering = [entrants[id_] for id_ in entrants if id_ in met]
    return enrol(context, entering) if entering else 0


def _keep(context: PassContext, cursor: EntryCursor) -> None:
    with write(context.engine) as connection:
        set_entry_cursor(connection, context.journey.campaign_id, _to_row(cursor))
