"""Recipients who take the same way through a journey at the same times, as groups: what is decided holds for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from postroad.store.enrolments.changes import Place
from postroad.store.planning import Member


class Traveller(NamedTuple):
    """A recipient on the way to the next place.

    ``enrolment_id``: 0 for a recipient who enters. ``entry``: the number of the recipient's entry.
    """

    recipient_id: int
    address: str
    enrolment_id: int = 0
    entry: int = 1


class Home(NamedTuple):
    """What decides the local time and the holidays of a recipient."""

    time_zone: str | None
    country: str | None
    subdivision: str | None

    @classmethod
    def of(cls, member: Member) -> Home:
        """Return the home of a member."""
        return cls(member.time_zone, member.country, member.subdivision)


@dataclass(kw_only=True, slots=True)
class TravellerGroup:
    """Travellers with the same home, who leave the same step at the same time.

    Attributes:
        travellers: The recipients.
        home: Where they are.
        after: When the step before ended: an email was accepted, a wait was over, or they entered.
        planned: When that was due.
        from_id: The step that the enrolments leave; of recipients who enter, the first one.
        passed_id: The last step that was passed.
        email_due: When the email that follows is due, if that was decided when the wait before it began.
        goal: Whether they have reached the goal.
        place: The result: the next place.
    """

    travellers: Sequence[Traveller]
    home: Home
    after: datetime
    planned: datetime
    from_id: int
    passed_id: int
    email_due: datetime | None = None
    goal: bool = False
    place: Place | None = None

    def at(self, time: datetime) -> TravellerGroup:
        """Return a copy whose step before ended at a time, as planned."""
        return replace(self, after=time, planned=time)

    def split(self, recipient_ids: Collection[int]) -> tuple[TravellerGroup | None, TravellerGroup | None]:
        """Return those of these recipients, and the others. None: an empty group."""
        inside = [one for one in self.travellers if one.recipient_id in recipient_ids]
        if len(inside) == len(self.travellers):
            return self, None
        if not inside:
            return None, self
        outside = [one for one in self.travellers if one.recipient_id not in recipient_ids]
        return replace(self, travellers=inside), replace(self, travellers=outside)

    def enrolled(self, enrolment_ids: Collection[int]) -> TravellerGroup:
        """Return the group with those of these enrolments."""
        kept = [one for one in self.travellers if one.enrolment_id in enrolment_ids]
        return self if len(kept) == len(self.travellers) else replace(self, travellers=kept)


Arrivals = defaultdict[int | None, list[TravellerGroup]]
"""Groups by the step at which they arrive; None: after the last one."""


def ids_of(groups: Iterable[TravellerGroup]) -> list[int]:
    """Return the recipients of groups."""
    return [one.recipient_id for group in groups for one in group.travellers]


def pages_of(groups: Iterable[TravellerGroup], size: int) -> Iterator[list[TravellerGroup]]:
    """Yield groups with at most ``size`` travellers together. A larger group is divided."""
    page: list[TravellerGroup] = []
    room = size
    for group in groups:
        rest = group.travellers
        while rest:
            page.append(replace(group, travellers=rest[:room]))
            room, rest = room - len(rest[:room]), rest[room:]
            if room == 0:
                yield page
                page, room = [], size
    if page:
        yield page
