"""Segments: the members of an audience who meet a condition. They are read in pages, in short transactions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from postroad.campaign.entry import CampaignEntry
from postroad.errors import StateError
from postroad.field_types import FieldType
from postroad.segment.sql import ConditionScope, SqlCondition, where_sql
from postroad.segment.tree import IsMissing, MergeField, RecipientCondition, from_json
from postroad.store.bulk import any_of, id_rows
from postroad.store.campaign import Campaign, CampaignState, find_campaign
from postroad.store.engine import read
from postroad.store.members_before import MembersBefore
from postroad.store.suppression import suppressed_sql

PAGE: Final = 2_000
"""Members that one transaction reads."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The members of an audience who meet a condition at a time. Without a condition: all members."""

    audience_id: int
    condition: RecipientCondition | None
    now: datetime

    @classmethod
    def of(cls, campaign: Campaign, now: datetime) -> Segment:
        """Return the segment of a campaign. Raises DataError if its stored condition is not valid."""
        condition = from_json(campaign.segment) if campaign.segment is not None else None
        return cls(audience_id=campaign.audience_id, condition=condition, now=now)

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """Merge fields that the condition names."""
        return self.condition.fields if self.condition is not None else {}

    def sql(self, dialect: str) -> SqlCondition:
        """Return the SQL of the condition over the row ``recipient``."""
        if self.condition is None:
            return SqlCondition("TRUE", {})
        return where_sql(self.condition, dialect, ConditionScope(now=self.now, audience_id=self.audience_id))

    def meeting(self, connection: sa.Connection, recipient_ids: Sequence[int]) -> Collection[int]:
        """Return which of these recipients meet the condition."""
        if self.condition is None:
            return recipient_ids
        where = self.sql(connection.dialect.name)
        item, parameters = id_rows(connection, recipient_ids)
        page = any_of(connection, f"SELECT batch.id FROM {item}")
        statement = sa.text(f"SELECT recipient.id FROM recipient WHERE recipient.id {page} AND {where.sql}")
        return set(connection.execute(statement, {**parameters, **where.parameters}).scalars())


class SegmentRow(NamedTuple):
    """A member of an audience. ``missing``: for each field of the condition, whether it has no value."""

    recipient_id: int
    address: str
    time_zone: str | None
    met: bool
    suppressed: bool
    missing: tuple[bool, ...]


def segment_pages(
    engine: sa.Engine, segment: Segment, *, after: int = 0, page: int = PAGE
) -> Iterator[list[SegmentRow]]:
    """Yield the members of the audience in order of their ids, each page in a transaction of its own.

    Args:
        engine: The database.
        segment: The segment.
        after: Id of the recipient before the first one.
        page: Members of a page.

    Yields:
        Members who meet the condition, and members who do not.
    """
    statement, parameters = _page_statement(engine.dialect.name, segment)
    while True:
        with read(engine) as connection:
            rows = connection.execute(statement, {**parameters, "after": after, "page": page}).all()
        if not rows:
            return
        after = rows[-1].id
        yield [
            SegmentRow(row[0], row[1], row[2], bool(row[3]), bool(row[4]), tuple(map(bool, row[5:]))) for row in rows
        ]


def _page_statement(dialect: str, segment: Segment) -> tuple[sa.TextClause, dict[str, Any]]:
    where = segment.sql(dialect)
    parameters: dict[str, Any] = {**where.parameters, "audience_id": segment.audience_id}
    columns = ["recipient.id", "recipient.address", "recipient.time_zone", f"{where.sql} AS met"]
    columns.append(f"{suppressed_sql()} AS suppressed")
    scope = ConditionScope(now=segment.now)
    for number, (name, kind) in enumerate(segment.fields.items()):
        condition = RecipientCondition("", IsMissing(MergeField(name, kind)))
        missing = where_sql(condition, dialect, scope, f"m{number}")
        columns.append(f"{missing.sql} AS missing_{number}")
        parameters |= missing.parameters
    members = (
        "SELECT recipient_id FROM audience_member WHERE audience_id = :audience_id AND recipient_id > :after "
        "ORDER BY recipient_id LIMIT :page"
    )
    page = f"IN ({members})" if dialect == "sqlite" else f"= ANY(ARRAY({members}))"
    statement = sa.text(
        f"SELECT {', '.join(columns)} FROM recipient "
        "CROSS JOIN (SELECT CAST(:audience_id AS bigint) AS audience_id, "
        "CAST(NULL AS bigint) AS permission_audience_id) AS campaign "
        f"WHERE recipient.id {page} ORDER BY recipient.id"
    )
    return statement, parameters


@dataclass(kw_only=True)
class SegmentCount:
    """Counts of a segment.

    ``members``: of the audience; ``matching``: those who meet the condition; ``suppressed``: of these, those who get
    no mail; ``destinations``: the others by domain and time zone. ``missing``: members
    without a value, by field of the condition.
    """

    members: int = 0
    matching: int = 0
    suppressed: int = 0
    destinations: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    missing: dict[str, int] = field(default_factory=dict)


def count_segment(
    engine: sa.Engine,
    segment: Segment,
    *,
    excluded: Set[int] = frozenset(),
    progress: Callable[[int], None] | None = None,
) -> SegmentCount:
    """Count the members of a segment.

    Args:
        engine: The database.
        segment: The segment.
        excluded: Hashes of addresses that are not counted, because a file that is imported first changes them.
        progress: Called with the number of members that were read.

    Returns:
        The counts.
    """
    count = SegmentCount(missing=dict.fromkeys(segment.fields, 0))
    for page in segment_pages(engine, segment):
        for row in page:
            if excluded and hash(row.address) in excluded:
                continue
            count.members += 1
            for name, is_missing in zip(count.missing, row.missing, strict=True):
                count.missing[name] += is_missing
            if not row.met:
                continue
            count.matching += 1
            if row.suppressed:
                count.suppressed += 1
            else:
                count.destinations[row.address.rpartition("@")[2], row.time_zone] += 1
        if progress is not None:
            progress(count.members)
    return count


def count_members(engine: sa.Engine, audience_id: int, before: MembersBefore | None = None) -> int:
    """Return the number of members of an audience. ``before``: which members are counted; None: all."""
    with read(engine) as connection:
        statement = sa.text(f"SELECT count(*) FROM {_members(before)}")
        return int(connection.execute(statement, {"id": audience_id}).scalar_one())


def has_members(connection: sa.Connection, audience_id: int, before: MembersBefore | None = None) -> bool:
    """Return whether an audience has a member. ``before``: which members count; None: all."""
    statement = sa.text(f"SELECT 1 FROM {_members(before)} LIMIT 1")
    return connection.execute(statement, {"id": audience_id}).first() is not None


def _members(before: MembersBefore | None) -> str:
    return "audience_member WHERE audience_id = :id" + (f" AND {before.sql}" if before is not None else "")


def count_audience(
    engine: sa.Engine,
    campaign: Campaign,
    now: datetime,
    *,
    excluded: Set[int] = frozenset(),
    before: MembersBefore | None = None,
) -> tuple[Counter[str | None], int]:
    """Count the recipients whom a launch would freeze.

    Args:
        engine: The database.
        campaign: The campaign.
        now: Time of the launch.
        excluded: For a segment: hashes of addresses that are not counted.
        before: Without a segment: which members are counted. None: all.

    Returns:
        Those who would get mail, by time zone, and the number of suppressed ones.
    """
    zones: Counter[str | None] = Counter()
    if campaign.segment is not None:
        count = count_segment(engine, Segment.of(campaign, now), excluded=excluded)
        for (_, zone), recipients in count.destinations.items():
            zones[zone] += recipients
        return zones, count.suppressed
    counted = f"AND {before.sql} " if before is not None else ""
    with read(engine) as connection:
        rows = connection.execute(
            sa.text(
                f"SELECT recipient.time_zone, count(*) AS n, count(*) FILTER (WHERE {suppressed_sql()}) AS suppressed "
                "FROM campaign JOIN audience_member ON audience_member.audience_id = campaign.audience_id "
                "JOIN recipient ON recipient.id = audience_member.recipient_id "
                f"WHERE campaign.id = :id {counted}GROUP BY recipient.time_zone ORDER BY recipient.time_zone"
            ),
            {"id": campaign.id},
        ).all()
    zones.update({row.time_zone: row.n - row.suppressed for row in rows})
    return zones, sum(row.suppressed for row in rows)


def require_matching(engine: sa.Engine, name: str, now: datetime) -> None:
    """Raise StateError if the launch of a segment would begin, and no member of the audience belongs to it."""
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
    if campaign.segment is None or campaign.state is not CampaignState.DRAFT or campaign.freezing_at is not None:
        return
    if CampaignEntry.of(campaign).stays_open:  # Recipients enter later.
        return
    members = False
    for page in segment_pages(engine, Segment.of(campaign, now)):
        members = True
        if any(row.met for row in page):
            return
    if members:
        raise StateError(
            f"no member of the audience of campaign {name} meets its condition: {campaign.segment['text']}",
            remedy=f"`postroad segment count --campaign {name}` shows how many lack a field.",
        )
