"""Reads what a campaign is still to send: how many messages, when they are due, and to which receivers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from postroad.campaign.sequence import EmailPlan
from postroad.dns.providers import OTHER_PROVIDERS, provider_table
from postroad.forecast.simulate import Arrival, LaneKey
from postroad.shaping.config import Shaping
from postroad.store.campaign import Campaign
from postroad.store.ledger import SENDER_OF_TOUCH, WAITING
from postroad.store.suppression import suppressed_sql
from postroad.store.touches.transitions import states_sql

BUCKET_S = 600
"""Due times of a running campaign are read to this many seconds."""


class RecipientGroup(NamedTuple):
    """A domain with its provider and site, where they are known, and a time zone, where it is."""

    domain: str
    provider: str | None
    site: str | None
    zone: str | None


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


def members(connection: sa.Connection, campaign: Campaign) -> Iterator[tuple[RecipientGroup, int]]:
    """Yield how many members of a campaign's audience are not suppressed, by destination."""
    statement = sa.text(
        "SELECT recipient.domain, mail_domain.provider, mail_domain.site, recipient.time_zone, count(*) AS members "
        "FROM campaign JOIN audience_member ON audience_member.audience_id = campaign.audience_id "
        "JOIN recipient ON recipient.id = audience_member.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        f"WHERE campaign.id = :id AND NOT {suppressed_sql()} "
        "GROUP BY recipient.domain, mail_domain.provider, mail_domain.site, recipient.time_zone"
    )
    for domain, provider, site, zone, number in connection.execute(statement, {"id": campaign.id}):
        yield RecipientGroup(domain, provider, site, zone), number


def first_arrivals(
    destinations: Iterator[tuple[RecipientGroup, int]], first: EmailPlan, sender: str, router: Router, now: datetime
) -> list[Arrival]:
    """Return the messages of the first email, if the campaign is launched now."""
    by_lane: Counter[LaneKey] = Counter()
    for destination, number in destinations:
        by_lane[router.lane(sender, destination)] += number
    due: dict[str, float] = {}
    for lane in by_lane:
        if lane.zone not in due:
            due[lane.zone] = first.due_at(now, ZoneInfo(lane.zone)).timestamp()
    return [Arrival(due[lane.zone], lane, 0, float(number)) for lane, number in by_lane.items()]


def waiting_arrivals(
    connection: sa.Connection, campaign: Campaign, emails: list[EmailPlan], router: Router, now: datetime
) -> list[Arrival]:
    """Return the messages of a running campaign that have not left. ``emails`` empty: it is another campaign."""
    places = {email.step_id: place for place, email in enumerate(emails)}
    at = _bucket(connection, "CASE WHEN touch.next_at > touch.due_at THEN touch.next_at ELSE touch.due_at END")
    statement = sa.text(
        f"SELECT touch.step_id, {at} AS due, sender.address, recipient.domain, mail_domain.provider, "
        "mail_domain.site, recipient.time_zone, count(*) AS messages FROM touch "
        "JOIN campaign ON campaign.id = touch.campaign_id "
        f"JOIN sender ON sender.id = {SENDER_OF_TOUCH} JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        f"WHERE touch.campaign_id = :id AND touch.state {states_sql(WAITING)} "
        "GROUP BY touch.step_id, due, sender.address, recipient.domain, mail_domain.provider, mail_domain.site, "
        "recipient.time_zone"
    )
    merged: Counter[tuple[float, LaneKey, int]] = Counter()
    for step_id, due, sender, *destination, number in connection.execute(statement, {"id": campaign.id}):
        lane = router.lane(sender, RecipientGroup(*destination), campaign=bool(emails))
        merged[max(float(due), now.timestamp()), lane, places.get(step_id, 0)] += number
    return [Arrival(due, lane, step, float(number)) for (due, lane, step), number in merged.items()]


def follow_up_arrivals(
    connection: sa.Connection,
    campaign: Campaign,
    emails: list[EmailPlan],
    router: Router,
    sender: str,
    next_due: Callable[[int, float, float, str], float],
) -> list[Arrival]:
    """Return the next messages to recipients whose last one was accepted, where they are not planned yet."""
    settled, due = _bucket(connection, "touch.settled_at"), _bucket(connection, "touch.due_at")
    statement = sa.text(
        f"SELECT touch.step_id, {settled} AS settled, {due} AS due, recipient.domain, mail_domain.provider, "
        "mail_domain.site, recipient.time_zone, count(*) AS messages FROM touch "
        "JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        "WHERE touch.campaign_id = :id AND touch.follow_up AND touch.state = 'accepted' "
        "GROUP BY touch.step_id, settled, due, recipient.domain, mail_domain.provider, mail_domain.site, "
        "recipient.time_zone"
    )
    places = {email.step_id: place for place, email in enumerate(emails)}
    arrivals = []
    for step_id, sent, planned, *destination, number in connection.execute(statement, {"id": campaign.id}):
        lane, place = router.lane(sender, RecipientGroup(*destination)), places[step_id]
        due_at = next_due(place, float(sent), float(planned), lane.zone)
        arrivals.append(Arrival(due_at, lane, place + 1, float(number)))
    return arrivals


def _bucket(connection: sa.Connection, expression: str) -> str:
    """Return the SQL of a time, rounded down to `BUCKET_S`, in seconds since the epoch."""
    if connection.dialect.name == "sqlite":
        return f"CAST(strftime('%s', {expression}) AS INTEGER) / {BUCKET_S} * {BUCKET_S}"
    return f"floor(extract(epoch FROM {expression}) / {BUCKET_S})::bigint * {BUCKET_S}"


def utc(at: float) -> datetime:
    """Return a time in seconds since the epoch as a datetime."""
    return datetime.fromtimestamp(at, UTC)
