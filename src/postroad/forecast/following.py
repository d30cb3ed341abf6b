"""Which email follows, and when: for a campaign of emails and waits alone, and for a journey.

A journey is simulated by shares. At each condition, the share of the recipients who match it now goes one way, and the
others go the other way. A date is read from a sample of the recipients.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol, assert_never
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from postroad.campaign.calendar import Window
from postroad.campaign.journey import PLAN_AHEAD, Journey
from postroad.campaign.journey_facts import DatabaseFacts
from postroad.campaign.journey_nodes import BranchNode, EmailNode, UntilNode, WaitNode
from postroad.campaign.segment import Segment
from postroad.campaign.sequence import EmailPlan, wait_over
from postroad.store.bulk import any_of, id_rows
from postroad.store.campaign import Campaign
from postroad.store.enrolment import EnrolmentState

SAMPLE = 2_000
"""Recipients from whom shares and dates are taken."""
SAMPLE_OF_SEGMENT = 10_000
"""Members of whom those of the segment are taken."""
_HOUR_S = 3600.0
_LEAST_SHARE = 1e-6


class NextEmail(NamedTuple):
    """An email, when it is due, in seconds since the epoch, and which share of the recipients gets it."""

    due: float
    step_id: int
    share: float = 1.0


class Following(Protocol):
    """The emails of a campaign in a forecast."""

    @property
    def names(self) -> Mapping[int, str]:
        """Name of each email, by the id of its step."""
        ...

    def first(self, now: float, zone: str) -> Sequence[NextEmail]:
        """Return the first emails of recipients who enter now."""
        ...

    def after(self, step_id: int, sent: float, due: float, zone: str) -> Sequence[NextEmail]:
        """Return the emails after one that was sent, and that was due, at these times."""
        ...


class Sequel:
    """The emails of a campaign of emails and waits alone."""

    def __init__(self, emails: Sequence[EmailPlan], window: Window | None, time_zone: str) -> None:
        self._emails = emails
        self._places = {email.step_id: place for place, email in enumerate(emails)}
        self._window, self._time_zone = window, time_zone
        self._due: dict[tuple[int, int, int, str], float] = {}

    @property
    def names(self) -> Mapping[int, str]:
        return {email.step_id: email.name for email in self._emails}

    def first(self, now: float, zone: str) -> Sequence[NextEmail]:
        return [self._at(0, now, now, zone)]

    def after(self, step_id: int, sent: float, due: float, zone: str) -> Sequence[NextEmail]:
        place = self._places[step_id] + 1
        return [self._at(place, sent, due, zone)] if place < len(self._emails) else []

    def _at(self, place: int, sent: float, due: float, zone: str) -> NextEmail:
        email = self._emails[place]
        key = (place, int(sent // 60), int(due // 60), zone)
        if key not in self._due:
            region = region_of(self._window, zone, self._time_zone)
            at = email.due_at(_utc(key[1] * 60), ZoneInfo(zone), planned=_utc(due), region=region)
            self._due[key] = at.timestamp()
        return NextEmail(self._due[key], email.step_id)


class JourneyShares(NamedTuple):
    """``matching``: share of the recipients who match the condition of a step. ``dates``: of a step that waits until a
    date, by time zone: each hour with the share of the recipients; the rest have no date.
    """

    matching: Mapping[int, float]
    dates: Mapping[int, Mapping[str, Sequence[tuple[float, float]]]]


class _Times(NamedTuple):
    """When the step before ended, and when that was due."""

    after: datetime
    planned: datetime

    @classmethod
    def at(cls, time: datetime) -> _Times:
        """Return the times of a step that ended when it was due, to the minute."""
        minute = time.replace(second=0, microsecond=0)
        return cls(minute, minute)


class JourneySequel:
    """The emails of a journey, by shares."""

    def __init__(self, journey: Journey, shares: JourneyShares, window: Window | None, time_zone: str) -> None:
        self._journey, self._shares = journey, shares
        self._window, self._time_zone = window, time_zone

    @property
    def names(self) -> Mapping[int, str]:
        return {node.step_id: node.plan.name for node in self._journey.emails}

    def first(self, now: float, zone: str) -> Sequence[NextEmail]:
        return self._from(self._journey.first_id, _utc(now), _utc(now), zone)

    def after(self, step_id: int, sent: float, due: float, zone: str) -> Sequence[NextEmail]:
        node = self._journey.nodes[step_id]
        assert isinstance(node, EmailNode)  # noqa: S101  (only emails are sent)
        minute = sent - sent % 60
        return self._from(node.next_id, _utc(minute), _utc(due), zone)

    def after_wait(self, step_id: int, over: float, zone: str) -> Sequence[NextEmail]:
        """Return the emails after a wait that is over at a time: where an enrolment waits."""
        node, at = self._journey.nodes[step_id], _utc(over)
        assert isinstance(node, WaitNode | UntilNode)  # noqa: S101  (only waits have a time)
        if node.email is not None:
            return [NextEmail((at + PLAN_AHEAD).timestamp(), node.email.step_id)]
        return self._from(node.next_id, at, at, zone)

    def _from(self, step_id: int | None, after: datetime, planned: datetime, zone: str) -> list[NextEmail]:
        """Return the emails that follow from the step at which recipients arrive.

        The steps are walked in reading order. Ways that meet again at the same minute are one way from there on.
        """
        places: defaultdict[int | None, defaultdict[_Times, float]] = defaultdict(lambda: defaultdict(float))
        places[step_id][_Times(after, planned)] = 1.0
        emails: defaultdict[tuple[float, int], float] = defaultdict(float)
        for node in self._journey.nodes.values():
            for times, share in places.pop(node.step_id, {}).items():
                if share < _LEAST_SHARE:
                    continue
                if isinstance(node, BranchNode):
                    matching = self._shares.matching[node.step_id]
                    places[node.then_id][times] += share * matching
                    places[node.else_id][times] += share * (1 - matching)
                elif (email := node if isinstance(node, EmailNode) else node.email) is not None:
                    for leaves, part in self._leave(node, times, zone):
                        wait = node.wait if isinstance(node, WaitNode) else timedelta()
                        emails[self._due(email, wait, leaves, zone), email.step_id] += share * part
                else:
                    for leaves, part in self._leave(node, times, zone):
                        places[node.next_id][leaves] += share * part
        return [NextEmail(due, email_id, share) for (due, email_id), share in emails.items()]

    def _leave(
        self, node: EmailNode | WaitNode | UntilNode, times: _Times, zone: str
    ) -> Sequence[tuple[_Times, float]]:
        """Return when recipients leave a step, by shares. A wait before an email is added to the email's due time."""
        match node:
            case UntilNode():
                hours = self._shares.dates[node.step_id].get(zone, ())
                return [(_Times.at(max(_utc(hour), times.after)), part) for hour, part in hours]
            case WaitNode() if node.email is None:
                return [(_Times.at(wait_over(node.wait, times.after, times.planned, ZoneInfo(zone))), 1.0)]
            case EmailNode() | WaitNode():
                return [(times, 1.0)]
            case _:
                assert_never(node)

    def _due(self, node: EmailNode, wait: timedelta, times: _Times, zone: str) -> float:
        region = region_of(self._window, zone, self._time_zone)
        plan = replace(node.plan, wait=wait)
        return plan.due_at(times.after, ZoneInfo(zone), planned=times.planned, region=region).timestamp()


def read_shares(connection: sa.Connection, journey: Journey, campaign: Campaign, now: datetime) -> JourneyShares:
    """Read the shares of a journey from a sample of its recipients: the enrolled ones, or the segment of a draft.

    Args:
        connection: A connection in a transaction.
        journey: The journey.
        campaign: Its campaign.
        now: The time at which conditions are evaluated.

    Returns:
        The shares. Without recipients, all go the second way, and no date is known.
    """
    zones = {id_: zone or campaign.time_zone for id_, zone in _sample(connection, campaign, now)}
    ids = list(zones)
    facts = DatabaseFacts(connection, journey.scope(now))
    matching: dict[int, float] = {}
    dates: dict[int, Mapping[str, Sequence[tuple[float, float]]]] = {}
    sampled = Counter(zones.values())
    for node in journey.nodes.values():
        if isinstance(node, BranchNode):
            matching[node.step_id] = len(facts.matching(node.condition, ids)) / max(len(ids), 1)
        elif isinstance(node, UntilNode):
            hours: dict[str, Counter[float]] = {zone: Counter() for zone in sampled}
            for id_, at in facts.dates(node.date, ids).items():
                hours[zones[id_]][at.timestamp() // _HOUR_S * _HOUR_S] += 1
            dates[node.step_id] = {
                zone: [(hour, number / sampled[zone]) for hour, number in sorted(of_zone.items())]
                for zone, of_zone in hours.items()
            }
    return JourneyShares(matching, dates)


def _sample(connection: sa.Connection, campaign: Campaign, now: datetime) -> Sequence[tuple[int, str | None]]:
    """Return recipients of a campaign, spread over their ids, with their time zones."""
    enrolled = _spread(connection, "enrolment WHERE campaign_id = :id", campaign.id or 0, SAMPLE)
    if enrolled:
        return enrolled
    segment = Segment.of(campaign, now)
    size = SAMPLE if segment.condition is None else SAMPLE_OF_SEGMENT
    found = _spread(connection, "audience_member WHERE audience_id = :id", campaign.audience_id, size)
    met = set(segment.meeting(connection, [id_ for id_, _ in found]))
    return [row for row in found if row[0] in met]


def _spread(connection: sa.Connection, rows: str, id_: int, size: int) -> Sequence[tuple[int, str | None]]:
    """Return recipients of a table, spread over their ids. ``rows``: the table, and the condition with ``:id``."""
    span = sa.text(f"SELECT min(recipient_id), max(recipient_id) FROM {rows}")
    first, last = connection.execute(span, {"id": id_}).one()
    if first is None:
        return []
    step = max((last - first + 1) // size, 1)
    item, parameters = id_rows(connection, list(range(first, last + 1, step)))
    chosen = any_of(connection, f"SELECT recipient_id FROM {rows} AND recipient_id IN (SELECT batch.id FROM {item})")
    statement = sa.text(f"SELECT id, time_zone FROM recipient WHERE id {chosen}")
    return [(row.id, row.time_zone) for row in connection.execute(statement, {"id": id_, **parameters})]


def waiting_enrolments(
    connection: sa.Connection, campaign_id: int, bucket: str
) -> Sequence[sa.Row[tuple[object, ...]]]:
    """Return how many enrolments wait for a time: step, time, domain, provider, site, zone, number.

    ``bucket``: SQL of ``enrolment.due_at`` in seconds since the epoch.
    """
    statement = sa.text(
        f"SELECT enrolment.step_id, {bucket} AS due, recipient.domain, mail_domain.provider, mail_domain.site, "
        "recipient.time_zone, count(*) AS enrolments FROM enrolment "
        "JOIN recipient ON recipient.id = enrolment.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        f"WHERE enrolment.campaign_id = :id AND enrolment.state = '{EnrolmentState.ACTIVE}' "
        "AND enrolment.due_at IS NOT NULL GROUP BY enrolment.step_id, due, recipient.domain, mail_domain.provider, "
        "mail_domain.site, recipient.time_zone"
    )
    return connection.execute(statement, {"id": campaign_id}).all()


def region_of(window: Window | None, zone: str, time_zone: str) -> str:
    """Return the region whose holidays apply in a zone: that of its country."""
    return window.region("", zone, time_zone) if window is not None else ""


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
