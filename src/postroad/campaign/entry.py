"""How recipients enter a campaign: all at the launch, or each as something happens."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from postroad.segment.tree import RecipientCondition, RecipientDate, date_from_json, from_json
from postroad.store.campaign import Campaign
from postroad.store.enrolments.pending import LastEntry
from postroad.store.planning import Member

LATE_ENTRY = timedelta(days=1)
"""An entry that a pass finds at most so late has the time of what it names, from which `again` counts."""


class EntryKind(StrEnum):
    """What enrols a recipient."""

    LAUNCH = "launch"  # every member of the audience, once
    JOINED = "joined"  # a member joins the audience
    EVENT = "event"  # a member does something
    DATE = "date"  # a date of a member comes
    API = "api"  # nothing: a program requests each message


class CampaignEntry:
    """The entry of a stored campaign."""

    def __init__(self, row: dict[str, Any] | None) -> None:
        row = row or {"kind": EntryKind.LAUNCH.value}
        self.kind = EntryKind(row["kind"])
        self.at_launch = self.kind is EntryKind.LAUNCH or bool(row.get("existing"))
        """Whether the members of the audience enter at the launch."""
        self.again = timedelta(milliseconds=row["again_ms"]) if "again_ms" in row else None
        """How long after the last entry a recipient may enter again; None: never."""
        self.event: str = row.get("event", "")
        self.condition: RecipientCondition | None = from_json(row["condition"]) if "condition" in row else None
        self.date: RecipientDate | None = date_from_json(row["date"]) if "date" in row else None

    @classmethod
    def of(cls, campaign: Campaign) -> CampaignEntry:
        """Return the entry of a campaign."""
        return cls((campaign.journey or {}).get("entry"))

    def number(self, last: LastEntry | None, at: datetime) -> int | None:
        """Return the number of a recipient's entry at a time. None: the recipient may not enter then.

        Args:
            last: The last entry of the recipient; None: this is the first one.
            at: When the recipient joined or did something, or the date of the recipient.
        """
        if last is None:
            return 1
        if self.again is None or not last.ended or at < last.at + self.again:
            return None
        return last.number + 1

    @property
    def by_request(self) -> bool:
        """Whether a program requests each message, and no recipient is enrolled."""
        return self.kind is EntryKind.API

    @property
    def stays_open(self) -> bool:
        """Whether recipients enter after the launch, until the campaign is closed."""
        return self.kind is not EntryKind.LAUNCH


class Entrant(NamedTuple):
    """A recipient who enters, and the time from which waits count. ``entry``: the number of this entry."""

    member: Member
    at: datetime
    entry: int = 1

    def entered_at(self, now: datetime) -> datetime:
        """Return the time of the entry: when it happened; ``now`` if a pass finds it much later."""
        return self.at if now - self.at <= LATE_ENTRY else now


def is_open(campaign: Campaign) -> bool:
    """Return whether recipients may still enter a campaign that was launched."""
    return CampaignEntry.of(campaign).stays_open and campaign.entry_closed_at is None
