"""A recipient with a past, as plain Python: what a condition depends on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from postroad.store.ledger import TouchState


class PersonTouch(msgspec.Struct, frozen=True, kw_only=True):
    """One email to the recipient. ``replied_at``: times of the replies to it."""

    campaign_id: int
    step: str
    state: TouchState
    settled_at: datetime | None = None
    replied_at: tuple[datetime, ...] = ()


class PersonEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the recipient."""

    name: str
    at: datetime
    fields: Mapping[str, object] = {}


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A recipient at a time.

    ``memberships``: audiences by name, with the time of joining, None if it was not recorded. ``audience`` and
    ``campaign_id``: those that functions refer to, as in `ConditionScope`.
    """

    now: datetime
    address: str
    time_zone: str | None = None
    provider: str | None = None
    fields: Mapping[str, object] = {}
    memberships: Mapping[str, datetime | None] = {}
    unsubscribed: bool = False
    touches: tuple[PersonTouch, ...] = ()
    events: tuple[PersonEvent, ...] = ()
    audience: str | None = None
    campaign_id: int | None = None

    @property
    def domain(self) -> str:
        """What follows the @ of the address."""
        return self.address.rpartition("@")[2]
