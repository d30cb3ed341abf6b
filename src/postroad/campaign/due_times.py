"""Due times of an email for many recipients."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from postroad.campaign.holidays import place_of
from postroad.campaign.sequence import EmailPlan
from postroad.store.campaign import Campaign
from postroad.store.planning import AcceptedTouch, AwaitingTouch, Member
from postroad.store.rollout import WithheldTouch


class DueTimes:
    """Caches due times of an email, which are slow to compute. Recipients share few time zones and minutes."""

    def __init__(self, email: EmailPlan, campaign: Campaign) -> None:
        self._email = email
        self._default_zone = campaign.time_zone
        self._known: dict[tuple[datetime, datetime | None, str | None, str], datetime] = {}

    def after(
        self,
        since: datetime,
        recipient: Member | AcceptedTouch | AwaitingTouch | WithheldTouch,
        planned: datetime | None = None,
    ) -> datetime:
        """Return when the email is due after a time. ``planned``: when the email before was due."""
        zone, window = recipient.time_zone, self._email.window
        region = (
            ""
            if window is None
            else window.region(place_of(recipient.country, recipient.subdivision), zone or "", self._default_zone)
        )
        key = since, planned, zone, region
        due = self._known.get(key)
        if due is None:
            due = self._email.due_at(since, ZoneInfo(zone or self._default_zone), planned=planned, region=region)
            self._known[key] = due
        return due
