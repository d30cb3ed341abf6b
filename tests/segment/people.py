"""Random recipients and random conditions, and the rows that a recipient is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
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
from tests.store.rows import add_audience, add_campaign, add_touch

NOW = datetime(2026, 5, 4, 8, 30, 15, 250_000, tzinfo=UTC)
FIELDS: Mapping[str, FieldType] = {
    "plan": FieldType.TEXT,
    "city": FieldType.TEXT,
    "seats": FieldType.NUMBER,
    "trial_ends": FieldType.DATE,
    "news": FieldType.YES_NO,
    "größe": FieldType.NUMBER,
    "in": FieldType.TEXT,
    "order": FieldType.DATE,
}
AUDIENCES = ("trials", "customers")
STEPS = ("hello", "deeper")

TEXTS = (
    "trial",
    "Trial",
    "TRIAL",
    "a%b",
    "a_b",
    "a*b",
    "a?b",
    "[a]b",
    "a\\b",
    "a'b",
    'a"b',
    "ab",
    "b",
    "",
    " ",
    "é",
    "é",
    "ÀÉÎ",
    "İ",
    "ß",
    "ẞ",
    "ſ",
    "K",
    "Ǆ",
    "ǅ",
    "Σς",
    "ЖЁ",
    "\uffff",
    "\U00010000",
    "😀",
    "\ue000",
    "line\nbreak",
    "a\tb",
    "x" * 3_000,
    "NULL",
    "--",
    "/*",
    ";",
    "$$",
    ":x",
    "%s",
    "?",
)
NUMBERS = (
    "0",
    "-0",
    "+0",
    "5",
    "5.0",
    "005",
    "+5",
    "-5",
    ".5",
    "5.",
    "1e3",
    "1E+3",
    "1e-99",
    "9e99",
    "1e400",
    "1e100",
    "NaN",
    "nan",
    "Infinity",
    "-inf",
    "٣",
    "５",
    "1_000",
    "1,5",
    "1.000,00",
    " 5",
    "5 ",
    "5\n",
    "0x10",
    "9007199254740993",
    "9007199254740992",
    "0.1",
    "0.30000000000000004",
    "0.3",
    "1" * 30,
    "1" * 31,
    "-",
    ".",
    "",
    "1e",
    "--5",
    "5e5e5",
)
DATES = (
    "2026-05-04",
    "2026-05-04 08:30",
    "2026-05-04T08:30:15.25",
    "2026-05-04T08:30:15.250Z",
    "2026-05-04T10:30:15.25+02:00",
    "2026-05-04 08:30:15.250999",
    "2026-05-11",
    "2026-02-29",
    "2024-02-29",
    "2100-02-29",
    "2000-02-29",
    "1969-12-31T23:59:59.999",
    "0001-01-01",
    "0999-12-31",
    "1000-01-01",
    "9999-12-31",
    "9999-12-31T23:59:59-14:59",
    "1000-01-01T00:00+14:59",
    "2026-05-04T24:00",
    "2026-05-04T23:59:60",
    "2026-13-01",
    "2026-04-31",
    "26-05-04",
    "04.05.2026",
    "2026-05-04T08",
    "today",
    "now",
    "infinity",
    "epoch",
    "2026-05-04Z",
    "2026-05-04 08:30 Z",
    "2026-05-04 08:30+0200",
    "2026-05-04 08:30 -02:30",
    "2026-05-04 08:30+15:00",
    "2026-05-04 08:30+02",
    "2026-05-04  08:30",
    "２０２６-05-04",
    "2026-05-04 08:30:15.1234567",
    "",
)
YES_NO = (
    "yes",
    "YES",
    "y",
    "true",
    "1",
    "on",
    "no",
    "No",
    "n",
    "FALSE",
    "0",
    "off",
    "maybe",
    "",
    "ON",
    "oN",
    "t",
    "ｙes",
)
NO_TEXT: tuple[Any, ...] = (5, 1.5, True, False, None, [1], {"a": "b"}, [], {})
AGES = tuple(
    timedelta(**age)
    for age in (
        {},
        {"microseconds": 1},
        {"milliseconds": 1},
        {"days": 1},
        {"days": 7},
        {"days": 7, "microseconds": -1},
        {"days": 7, "microseconds": 1},
        {"days": 30},
        {"days": 400},
        {"days": -1},
    )
)

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


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(name: str) -> str:
    return f'"{name}"' if name == "in" else name


_durations = st.sampled_from(("7d", "'7d'", "1ms", "30d", "12h", "1.5d", "'30d'"))
_of_type = {kind: [_name(name) for name, its in FIELDS.items() if its is kind] for kind in FieldType}
_literal_texts = [quoted(text) for text in TEXTS if text and len(text) < 1_000]
_numbers_literal = ["0", "5", "-5", "0.1", "0.3", "1e3", "9007199254740992", "1000", "9e99", "- 5"]
_dates_literal = [quoted(text) for text in ("2026-05-04", "2026-05-04 08:30", "2026-05-04T08:30:15.25Z", "1000-01-01")]
_raw = st.sampled_from([*_of_type[FieldType.TEXT], "domain()", "provider()", "address", "time_zone"])
_event_raw = st.sampled_from(["plan", "seats", "trial_ends", "news", "city"])


def _terms(
    raw: st.SearchStrategy[str], own: Mapping[FieldType, Sequence[str]]
) -> dict[FieldType, st.SearchStrategy[str]]:
    """Terms of each type over fields that are text, and over fields with types."""
    text = raw | raw.map("lower({})".format) | raw.map("text({})".format)
    if own[FieldType.NUMBER]:
        text |= st.sampled_from([*own[FieldType.NUMBER], *own[FieldType.DATE]]).map("text({})".format)
    number, date = raw.map("number({})".format), raw.map("date({})".format) | st.just("now()")
    if own[FieldType.NUMBER]:
        number |= st.sampled_from(own[FieldType.NUMBER])
        date |= st.sampled_from(own[FieldType.DATE])
    shifted = st.builds("{} {} {}".format, date, st.sampled_from("+-"), _durations)
    return {FieldType.TEXT: text, FieldType.NUMBER: number, FieldType.DATE: date | shifted}


_LITERALS = {FieldType.TEXT: _literal_texts, FieldType.NUMBER: _numbers_literal, FieldType.DATE: _dates_literal}
_OPERATORS = st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="])
_NOT = st.sampled_from(["", "NOT "])


def _comparisons(terms: Mapping[FieldType, st.SearchStrategy[str]]) -> st.SearchStrategy[str]:
    found = []
    for kind, term in terms.items():
        literal = st.sampled_from(_LITERALS[kind])
        either = term | literal
        found += [
            st.builds("{} {} {}".format, term, _OPERATORS, either),
            st.builds("{} {} {}".format, literal, _OPERATORS, term),
            st.builds("{} {}IN ({})".format, term, _NOT, st.lists(literal, min_size=1, max_size=3).map(", ".join)),
            st.builds("{} {}BETWEEN {} AND {}".format, term, _NOT, either, either),
            st.builds("{} IS {}NULL".format, term, _NOT),
        ]
    patterns = st.text(st.sampled_from("ab%_*?[]\\'TRé😀"), min_size=1, max_size=6).filter(lambda text: text.strip("'"))
    found.append(st.builds("{} {}LIKE {}".format, terms[FieldType.TEXT], _NOT, patterns.map(quoted)))
    escaped = st.lists(st.sampled_from(["a", "b", "%", "_", "!%", "!_", "!!", "\\", "*"]), min_size=1, max_size=5)
    found.append(
        st.builds("{} {}LIKE {} ESCAPE '!'".format, terms[FieldType.TEXT], _NOT, escaped.map("".join).map(quoted))
    )
    return st.one_of(found)


def _combined(clauses: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        clauses,
        lambda inner: (
            st.builds("({} AND {})".format, inner, inner)
            | st.builds("({} OR {})".format, inner, inner)
            | st.builds("NOT ({})".format, inner)
            | st.builds("{} and {}".format, inner, inner)
            | st.builds("{} or {}".format, inner, inner)
        ),
        max_leaves=5,
    )


_event_conditions = _combined(_comparisons(_terms(_event_raw, {kind: [] for kind in FieldType})))
_calls = st.one_of(
    st.sampled_from([f"in_audience('{name}')" for name in (*AUDIENCES, "nowhere")]),
    st.builds("joined({})".format, st.just("") | _durations),
    st.builds(
        "accepted({})".format, st.sampled_from(["", "'hello'", "'deeper'", "7d", "'hello', 7d", "within => '30d'"])
    ),
    st.builds("{}({})".format, st.sampled_from(["bounced", "replied", "mailed"]), st.just("") | _durations),
    st.just("unsubscribed()"),
    st.builds("event('{}')".format, st.sampled_from(["paid", "signed-up", "never"])),
    st.builds("event('paid', {})".format, _durations),
    st.builds("event('paid', where => {})".format, _event_conditions),
    st.builds("event('signed-up', {}, {})".format, _durations, _event_conditions),
)
_yes_no = st.sampled_from(
    ["news", "NOT news", "news = true", "news != 'yes'", "news IN (true, false)", "news NOT IN ('no')", "news IS NULL"]
)
conditions = _combined(_comparisons(_terms(_raw, _of_type)) | _calls | _yes_no)

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
