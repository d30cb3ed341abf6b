"""Random recipients and random conditions, and the rows that a recipient is made of."""

from __future__ import annotations

from itertools import count
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st
from sqlmodel import Session

from postroad.field_types import FieldType
from postroad.segment.person import Person, PersonEvent, PersonTouch
from postroad.segment.sql import ConditionScope
from postroad.store.ledger import DeliveryEvent, TouchState
from postroad.store.mail_domain import MailDomain
from postroad.store.recipient import Recipient
from postroad.store.recipient_event import RecipientEvent
from postroad.store.suppression import Suppression, SuppressionReason
from tests.segment.people_fields import AGES, AUDIENCES, DATES, FIELDS, NO_TEXT, NOW, NUMBERS, STEPS, TEXTS, YES_NO
from tests.store.rows import add_audience, add_campaign, add_touch

_any_value = st.sampled_from((*TEXTS, *NUMBERS, *DATES, *YES_NO, *NO_TEXT))

_times = st.sampled_from(AGES).map(lambda age: NOW - age)


def _fields() -> st.SearchStrategy[dict[str, Any]]:
    usual = {FieldType.TEXT: TEXTS, FieldType.NUMBER: NUMBERS, FieldType.DATE: DATES, FieldType.YES_NO: YES_NO}
    return st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(usual[kind]) | _any_value for name, kind in FIELDS.items()}
    )


def _touches() -> st.SearchStrategy[tuple[PersonTouch, ...]]:
    """At most one touch for each campaign and step, as the table has."""
    touch = st.builds(
        PersonTouch,
        campaign_id=st.sampled_from((1, 2)),
        step=st.sampled_from(STEPS),
        state=st.sampled_from((TouchState.ACCEPTED, TouchState.BOUNCED, TouchState.DEAD)),
        settled_at=_times,
        replied_at=st.lists(_times, max_size=2).map(tuple),
    )
    return st.lists(touch, max_size=3, unique_by=lambda one: (one.campaign_id, one.step)).map(tuple)


people = st.builds(
    Person,
    now=st.just(NOW),
    address=st.builds(
        lambda local, domain: f"{local}@{domain}", st.just("x"), st.sampled_from(("a.example", "b.example"))
    ),
    time_zone=st.sampled_from((None, "Europe/Berlin", "UTC")),
    fields=_fields(),
    memberships=st.dictionaries(st.sampled_from(AUDIENCES), st.none() | _times),
    unsubscribed=st.booleans(),
    touches=_touches(),
    events=st.lists(
        st.builds(PersonEvent, name=st.sampled_from(("paid", "signed-up")), at=_times, fields=_fields()), max_size=3
    ).map(tuple),
)
"""Campaigns are 1 and 2; `Store.add` replaces them by their ids. Providers follow from domains."""

PROVIDERS = {"a.example": "google", "b.example": None}

_numbers = count(1)


class Store:
    """The rows of recipients, in one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        number = next(_numbers)
        self.audiences = {name: add_audience(connection, name=name) for name in AUDIENCES}
        self.campaigns = {
            key: add_campaign(connection, name=f"c{number}-{key}", audience_id=self.audiences["trials"], steps=({}, {}))
            for key in (1, 2)
        }
        self.scope = ConditionScope(
            now=NOW,
            audience_id=self.audiences["trials"],
            campaign_id=self.campaigns[1][0],
            steps=dict(zip(STEPS, self.campaigns[1][1], strict=True)),
        )
        for domain, provider in PROVIDERS.items():
            if provider is not None:
                self._add(MailDomain(domain=domain, provider=provider, site=domain, expires_at=NOW))

    def _add(self, row: Any) -> int:
        session = Session(self.connection)
        session.add(row)
        session.flush()
        found = getattr(row, "id", None) or 0
        session.expunge_all()
        return int(found)

    def add(self, drawn: Person) -> tuple[int, Person]:
        """Add a recipient. Returns the id, and the person as conditions see it."""
        number = next(_numbers)
        address = f"r{number}@{drawn.domain}"
        row = Recipient(
            address=address,
            domain=drawn.domain,
            time_zone=drawn.time_zone,
            attributes=dict(drawn.fields),
            created_at=NOW,
        )
        recipient_id = self._add(row)
        imports = self.connection.execute(sa.text("SELECT audience_id, id FROM audience_import"))
        import_ids = {row.audience_id: row.id for row in imports}
        for name, joined_at in drawn.memberships.items():
            audience_id = self.audiences[name]
            values = {
                "audience_id": audience_id,
                "recipient_id": recipient_id,
                "import_id": import_ids[audience_id],
                "joined_at": joined_at,
            }
            self.connection.execute(sa.insert(_MEMBER).values(**values))
        if drawn.unsubscribed:
            reason = SuppressionReason.UNSUBSCRIBE
            self._add(Suppression(address=address, reason=reason, source="test", created_at=NOW))
        for event in drawn.events:
            self._add(
                RecipientEvent(recipient_id=recipient_id, name=event.name, at=event.at, fields=dict(event.fields))
            )
        for touch in drawn.touches:
            self._add_touch(recipient_id, touch)
        ids = {key: campaign_id for key, (campaign_id, _) in self.campaigns.items()}
        person = Person(
            now=NOW,
            address=address,
            time_zone=drawn.time_zone,
            provider=PROVIDERS[drawn.domain],
            fields=drawn.fields,
            memberships=drawn.memberships,
            unsubscribed=drawn.unsubscribed,
            touches=tuple(
                PersonTouch(
                    campaign_id=ids[touch.campaign_id],
                    step=touch.step,
                    state=touch.state,
                    settled_at=touch.settled_at,
                    replied_at=touch.replied_at,
                )
                for touch in drawn.touches
            ),
            events=drawn.events,
            audience="trials",
            campaign_id=ids[1],
        )
        return recipient_id, person

    def _add_touch(self, recipient_id: int, touch: PersonTouch) -> None:
        campaign_id, step_ids = self.campaigns[touch.campaign_id]
        step_id = step_ids[STEPS.index(touch.step)]
        touch_id = add_touch(
            self.connection, campaign_id, step_id, touch.state, recipient_id=recipient_id, settled_at=touch.settled_at
        )
        for at in touch.replied_at:
            uid = f"reply-{next(_numbers)}"
            event = DeliveryEvent(uid=uid, touch_id=touch_id, state=touch.state, at=at, attempt=0, cause="reply")
            self._add(event)


_MEMBER = sa.table(
    "audience_member",
    sa.column("audience_id"),
    sa.column("recipient_id"),
    sa.column("import_id"),
    sa.column("joined_at", RecipientEvent.__table__.c.at.type),  # type: ignore[attr-defined]
)
