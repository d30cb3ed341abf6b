"""Reads what a campaign is still to send: how many messages, when they are due, and to which receivers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple

import sqlalchemy as sa

from postroad.campaign.segment import Segment, segment_pages
from postroad.dns.providers import OTHER_PROVIDERS, provider_table
from postroad.forecast.following import Following, JourneySequel, NextEmail, waiting_enrolments
from postroad.forecast.frequency import ForecastCap, bucket
from postroad.forecast.simulate import Arrival, LaneKey
from postroad.forecast.tested import SplitEmails
from postroad.shaping.config import Shaping
from postroad.store.campaign import Campaign
from postroad.store.engine import read
from postroad.store.ledger import LEAVES_AT, SENDER_OF_TOUCH, SENT_OR_SKIPPED, WAITING, TouchState
from postroad.store.mail_domain import known_providers
from postroad.store.members_before import MembersBefore
from postroad.store.suppression import suppressed_sql
from postroad.store.touches.transitions import states_sql

_DOMAINS = 1_000


class RecipientGroup(NamedTuple):
    """A domain with its provider and site, where they are known, and a time zone, where it is.

    ``held``: time before which a frequency cap lets no message leave, in seconds since the epoch.
    """

    domain: str
    provider: str | None
    site: str | None
    zone: str | None
    held: float = 0.0


class Router:
    """Finds the lane of mail to a domain, as a submission does."""

    def __init__(self, shaping: Shaping, time_zone: str) -> None:
        self._shaping = shaping
        self._time_zone = time_zone

    def lane(self, sender: str, to: RecipientGroup, *, campaign: bool = True) -> LaneKey:
        well_known = provider_table().of_domain(to.domain)
        provider, site = (well_known, well_known) if well_known else (to.provider, to.site)
        if provider is None or site is None:
            provider, site = OTHER_PROVIDERS, to.domain
        receiver = self._shaping.receiver_of(provider, site, to.domain)
        return LaneKey(sender, str(receiver), provider, to.zone or self._time_zone, campaign)


def members(
    connection: sa.Connection,
    campaign: Campaign,
    cap: ForecastCap | None = None,
    before: MembersBefore | None = None,
) -> Iterator[tuple[RecipientGroup, int]]:
    """Yield how many members of a campaign's audience are not suppressed, by destination and hold of its cap.

    ``before``: which members are counted. None: all.
    """
    held = cap.held_until(connection, "recipient.id") if cap is not None else "0"
    counted = f"AND {before.sql} " if before is not None else ""
    statement = sa.text(
        f"SELECT recipient.domain, mail_domain.provider, mail_domain.site, recipient.time_zone, {held} AS held, "
        "count(*) AS members "
        "FROM campaign JOIN audience_member ON audience_member.audience_id = campaign.audience_id "
        "JOIN recipient ON recipient.id = audience_member.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        f"WHERE campaign.id = :id {counted}AND NOT {suppressed_sql()} "
        "GROUP BY recipient.domain, mail_domain.provider, mail_domain.site, recipient.time_zone, held"
    )
    for domain, provider, site, zone, until, number in connection.execute(statement, {"id": campaign.id}):
        yield RecipientGroup(domain, provider, site, zone, float(until)), number


def segment_members(
    engine: sa.Engine, campaign: Campaign, now: datetime, excluded: Set[int], cap: ForecastCap | None = None
) -> Iterator[tuple[RecipientGroup, int]]:
    """Yield how many recipients of a segment are not suppressed, by destination and hold of a frequency cap.

    Args:
        engine: The database.
        campaign: A campaign with a condition on its audience.
        now: The time of the launch.
        excluded: Hashes of addresses that are not counted, because the launch imports them first.
        cap: The frequency cap of the campaign.
    """
    count: Counter[tuple[str, str | None, float]] = Counter()
    for page in segment_pages(engine, Segment.of(campaign, now)):
        rows = [row for row in page if row.met and not row.suppressed and hash(row.address) not in excluded]
        with read(engine) as connection:
            held = cap.held_recipients(connection, [row.recipient_id for row in rows]) if cap is not None else {}
        count.update((row.address.rpartition("@")[2], row.time_zone, held.get(row.recipient_id, 0.0)) for row in rows)
    domains = iter({domain for domain, *_ in count})
    known: dict[str, tuple[str, str]] = {}
    with read(engine) as connection:
        while step := list(islice(domains, _DOMAINS)):
            known |= known_providers(connection, step)
    for (domain, zone, until), number in count.items():
        provider, site = known.get(domain, (None, None))
        yield RecipientGroup(domain, provider, site, zone, until), number


def first_arrivals(
    groups: Iterable[tuple[RecipientGroup, float]], following: Following, sender: str, router: Router, now: datetime
) -> list[Arrival]:
    """Return the first messages of recipients who enter now, if the campaign is launched now."""
    by_lane: defaultdict[tuple[LaneKey, float], float] = defaultdict(float)
    for group, number in groups:
        by_lane[router.lane(sender, group), group.held] += number
    zones = {lane.zone for lane, _ in by_lane}
    if isinstance(following, SplitEmails):
        following.begin(now.timestamp(), zones)
    first = {zone: following.first(now.timestamp(), zone) for zone in zones}
    return [
        arrival._replace(due=max(arrival.due, held))
        for (lane, held), number in by_lane.items()
        for arrival in _split(first[lane.zone], lane, number)
    ]


def waiting_arrivals(
    connection: sa.Connection,
    campaign: Campaign,
    router: Router,
    now: datetime,
    *,
    own: bool = True,
    cap: ForecastCap | None = None,
) -> list[Arrival]:
    """Return the messages of a running campaign that are planned or queued, or wait for their variants.

    ``cap``: its frequency cap.
    """
    leaves = f"CASE WHEN touch.state = 'awaiting' AND variant_test.decide_at > {LEAVES_AT} THEN variant_test.decide_at "
    at = bucket(connection, f"{leaves}WHEN touch.next_at > {LEAVES_AT} THEN touch.next_at ELSE {LEAVES_AT} END")
    if cap is not None:
        later = "max" if connection.dialect.name == "sqlite" else "greatest"
        at = f"{later}({at}, {cap.held_until(connection, 'touch.recipient_id')})"
    statement = sa.text(
        f"SELECT touch.step_id, {at} AS due, sender.address, recipient.domain, mail_domain.provider, "
        "mail_domain.site, recipient.time_zone, count(*) AS messages FROM touch "
        "JOIN campaign ON campaign.id = touch.campaign_id "
        f"JOIN sender ON sender.id = {SENDER_OF_TOUCH} JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        "LEFT JOIN variant_test ON variant_test.step_id = touch.step_id "
        f"WHERE touch.campaign_id = :id AND touch.state {states_sql((TouchState.AWAITING, *WAITING))} "
        "GROUP BY touch.step_id, due, sender.address, recipient.domain, mail_domain.provider, mail_domain.site, "
        "recipient.time_zone"
    )
    merged: Counter[tuple[float, LaneKey, int]] = Counter()
    for step_id, due, sender, *group, number in connection.execute(statement, {"id": campaign.id}):
        lane = router.lane(sender, RecipientGroup(*group), campaign=own)
        merged[max(float(due), now.timestamp()), lane, step_id] += number
    return [Arrival(due, lane, step, float(number)) for (due, lane, step), number in merged.items()]


def follow_up_arrivals(
    connection: sa.Connection, campaign: Campaign, following: Following, router: Router, sender: str
) -> list[Arrival]:
    """Return the next messages to recipients whose last one was accepted, where they are not planned yet."""
    settled, due = bucket(connection, "touch.settled_at"), bucket(connection, "touch.due_at")
    statement = sa.text(
        f"SELECT touch.step_id, {settled} AS settled, {due} AS due, recipient.domain, mail_domain.provider, "
        "mail_domain.site, recipient.time_zone, count(*) AS messages FROM touch "
        "JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        f"WHERE touch.campaign_id = :id AND touch.follow_up AND touch.state {states_sql(SENT_OR_SKIPPED)} "
        "GROUP BY touch.step_id, settled, due, recipient.domain, mail_domain.provider, mail_domain.site, "
        "recipient.time_zone"
    )
    arrivals: list[Arrival] = []
    for step_id, sent, planned, *group, number in connection.execute(statement, {"id": campaign.id}):
        lane = router.lane(sender, RecipientGroup(*group))
        arrivals += _split(following.after(step_id, float(sent), float(planned), lane.zone), lane, number)
    return arrivals


def enrolled_arrivals(
    connection: sa.Connection, campaign_id: int, following: JourneySequel | SplitEmails, router: Router, sender: str
) -> list[Arrival]:
    """Return the next messages to recipients of a journey who wait for a time."""
    arrivals: list[Arrival] = []
    for step_id, over, *group, number in waiting_enrolments(
        connection, campaign_id, bucket(connection, "enrolment.due_at")
    ):
        lane = router.lane(sender, RecipientGroup(*group))
        arrivals += _split(following.after_wait(step_id, float(over), lane.zone), lane, number)
    return arrivals


def _split(emails: Sequence[NextEmail], lane: LaneKey, number: float) -> list[Arrival]:
    """Return the messages of each email, for a number of recipients."""
    return [Arrival(email.due, lane, email.step_id, number * email.share) for email in emails]


def utc(at: float) -> datetime:
    """Return a time in seconds since the epoch as a datetime."""
    return datetime.fromtimestamp(at, UTC)
