"""Events become the ledger: each moves its touch as far as it may, and twice is once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

import pytest
import sqlalchemy as sa

from postroad.delivery.job import job_id
from postroad.delivery.recorder import record
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.errors import Blame
from postroad.queue import Event, EventKind
from postroad.settings import BounceSettings
from postroad.store.engine import read, write
from postroad.store.ledger import Touch, TouchState
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch, touch_row

AT_MS = 1_780_000_000_000
_numbers = count(1)


def note(state: TouchState, **fields: object) -> bytes:
    return encode_result(DeliveryResult(state=state, **fields))  # type: ignore[arg-type]


def event(touch_id: int, kind: EventKind, note_: bytes = b"", *, claim: int = 1, **fields: object) -> Event:
    """An event of the claim with this token."""
    number = next(_numbers)
    values: dict[str, object] = {
        "entry": f"{number}-0",
        "id": job_id(touch_id),
        "token": claim,
        "kind": kind,
        "at_ms": AT_MS,
        "attempt": 1,
        "claim": 1,
        "next_ms": 0,
        "cause": "",
        "error": "",
        "note": note_,
    }
    return Event(**{**values, **fields})  # type: ignore[arg-type]


@dataclass
class Ledger:
    """One campaign's touches, and events put on them."""

    engine: sa.Engine
    bounce: BounceSettings = field(default_factory=BounceSettings)

    def touch(self, state: TouchState, claim: int = 1) -> int:
        with write(self.engine) as connection:
            campaign, steps = add_campaign(connection)
            return add_touch(connection, campaign, steps[0], state, claim=claim)

    def record(self, *events: Event) -> None:
        with write(self.engine) as connection:
            record(connection, events, NOW, self.bounce)

    def row(self, touch_id: int) -> Touch:
        with read(self.engine) as connection:
            return touch_row(connection, touch_id)

    def scalar(self, statement: str) -> object:
        with read(self.engine) as connection:
            return connection.execute(sa.text(statement)).scalar()


@pytest.fixture
def ledger(engine: sa.Engine) -> Ledger:
    return Ledger(engine)


ACCEPTED = (EventKind.DONE, note(TouchState.ACCEPTED, reply_code=250, reply="250 ok"))
BOUNCED = (EventKind.DEAD, note(TouchState.BOUNCED, cause="no such mailbox", blame=Blame.RECIPIENT))
DEAD = (EventKind.DEAD, note(TouchState.DEAD, cause="sender refused", blame=Blame.SENDER))
EXHAUSTED = (EventKind.DEAD, note(TouchState.DEFERRED, cause="connection lost at mail"))
DEFERRED = (EventKind.DEFER, note(TouchState.DEFERRED, cause="deferred by the host"))
RETRY = (EventKind.RETRY, b"")
PUT_OFF = (EventKind.DEFER, b"")
UNKNOWN = (EventKind.UNCERTAIN, b"")
RELEASED = (EventKind.RELEASED, b"")
SUPPRESSED = (EventKind.CANCELLED, note(TouchState.SUPPRESSED))
CANCELLED_QUIETLY = (EventKind.CANCELLED, b"")
EXPIRED = (EventKind.EXPIRED, b"")
LATE_ACCEPTED = (EventKind.LATE, note(TouchState.ACCEPTED))
LATE_UNSENT = (EventKind.LATE, note(TouchState.QUEUED))

S = TouchState


@pytest.mark.parametrize(
    ("before", "happened", "after"),
    [
        (S.SENDING, ACCEPTED, S.ACCEPTED),
        (S.SENDING, BOUNCED, S.BOUNCED),
        (S.SENDING, DEAD, S.DEAD),
        (S.SENDING, EXHAUSTED, S.DEAD),
        (S.SENDING, DEFERRED, S.DEFERRED),
        (S.SENDING, RETRY, S.DEFERRED),
        (S.SENDING, UNKNOWN, S.UNKNOWN),
        (S.SENDING, RELEASED, S.QUEUED),
        (S.QUEUED, PUT_OFF, S.QUEUED),
        (S.QUEUED, SUPPRESSED, S.SUPPRESSED),
        (S.QUEUED, EXPIRED, S.EXPIRED),
        (S.QUEUED, CANCELLED_QUIETLY, S.QUEUED),
        # What was planned may be sent and recorded before the transaction that queued it is seen to end.
        (S.PLANNED, ACCEPTED, S.ACCEPTED),
        (S.DEFERRED, ACCEPTED, S.ACCEPTED),
        # A fact found out later.
        (S.UNKNOWN, ACCEPTED, S.ACCEPTED),
        (S.UNKNOWN, LATE_ACCEPTED, S.ACCEPTED),
        (S.UNKNOWN, LATE_UNSENT, S.QUEUED),
        (S.UNKNOWN, BOUNCED, S.BOUNCED),
        (S.CANCELLED, ACCEPTED, S.ACCEPTED),
        (S.EXPIRED, LATE_ACCEPTED, S.ACCEPTED),
        # What has ended does not move for less.
        (S.ACCEPTED, BOUNCED, S.ACCEPTED),
        (S.ACCEPTED, UNKNOWN, S.ACCEPTED),
        (S.ACCEPTED, DEFERRED, S.ACCEPTED),
        (S.ACCEPTED, LATE_UNSENT, S.ACCEPTED),
        (S.BOUNCED, DEFERRED, S.BOUNCED),
        (S.CANCELLED, SUPPRESSED, S.CANCELLED),
        (S.CANCELLED, RELEASED, S.CANCELLED),
        (S.SUPPRESSED, UNKNOWN, S.SUPPRESSED),
    ],
)
def test_event_moves_its_touch_as_far_as_it_may(
    ledger: Ledger, before: TouchState, happened: tuple[EventKind, bytes], after: TouchState
) -> None:
    touch_id = ledger.touch(before)
    ledger.record(event(touch_id, *happened))
    row = ledger.row(touch_id)
    assert row.state is after
    assert (row.settled_at is not None) == (after.ended and before is not after) or before is after


def test_the_same_events_again_change_nothing(ledger: Ledger) -> None:
    touch_id = ledger.touch(S.SENDING)
    events = [event(touch_id, *DEFERRED, next_ms=AT_MS + 1000), event(touch_id, *ACCEPTED)]
    ledger.record(*events)
    first = ledger.row(touch_id)
    ledger.record(*events)
    assert ledger.row(touch_id) == first
    assert ledger.scalar("SELECT count(*) FROM delivery_event") == 2


def test_of_many_events_of_one_touch_the_last_counts_and_acceptance_stays(ledger: Ledger) -> None:
    one, other = ledger.touch(S.SENDING), ledger.touch(S.SENDING)
    ledger.record(
        event(one, *DEFERRED),
        event(other, *ACCEPTED),
        event(one, *BOUNCED),
        event(other, *UNKNOWN),
    )
    assert ledger.row(one).state is S.BOUNCED
    assert ledger.row(other).state is S.ACCEPTED


@pytest.mark.parametrize("happened", [DEFERRED, RELEASED, RETRY])
def test_what_ended_an_earlier_claim_does_not_touch_a_later_one_on_the_wire(
    ledger: Ledger, happened: tuple[EventKind, bytes]
) -> None:
    touch_id = ledger.touch(S.SENDING, claim=2)
    ledger.record(event(touch_id, *happened, claim=1))
    assert ledger.row(touch_id).state is S.SENDING


def test_a_late_word_of_an_earlier_claim_does_not_revive_a_later_unknown(ledger: Ledger) -> None:
    touch_id = ledger.touch(S.UNKNOWN, claim=2)
    ledger.record(event(touch_id, *LATE_UNSENT))
    assert ledger.row(touch_id).state is S.UNKNOWN


def test_deferral_says_when_it_is_tried_again_and_what_was_said(ledger: Ledger) -> None:
    touch_id = ledger.touch(S.SENDING)
    said = note(
        S.DEFERRED, reply_code=451, enhanced_code="4.7.1", reply="451 4.7.1 later", cause="deferred by the host"
    )
    ledger.record(event(touch_id, EventKind.DEFER, said, next_ms=AT_MS + 60_000))
    row = ledger.row(touch_id)
    assert row.next_at == datetime.fromtimestamp(AT_MS / 1000 + 60, UTC)
    assert row.reply == "451 4.7.1 later"
    assert ledger.scalar("SELECT enhanced_code FROM delivery_event") == "4.7.1"


def test_hard_bounce_suppresses_its_address_once(ledger: Ledger) -> None:
    touch_id = ledger.touch(S.SENDING)
    hard = note(S.BOUNCED, cause="no such mailbox", suppress=True)
    ledger.record(event(touch_id, EventKind.DEAD, hard))
    ledger.record(event(touch_id, EventKind.DEAD, hard))
    assert ledger.scalar("SELECT count(*) FROM suppression") == 1
    assert ledger.scalar("SELECT reason FROM suppression") == "hard_bounce"


def test_event_of_a_touch_of_another_ledger_is_passed_over(ledger: Ledger) -> None:
    ledger.record(event(987_654_321, *ACCEPTED))
    assert ledger.scalar("SELECT count(*) FROM delivery_event") == 0


def test_the_third_soft_bounce_in_a_row_at_delivery_suppresses(ledger: Ledger) -> None:
    with write(ledger.engine) as connection:
        ada, bob = add_recipient(connection, "ada@example.com"), add_recipient(connection, "bob@example.com")

    def bounce(recipient: int, cause: str = "mailbox full", blame: Blame = Blame.RECIPIENT) -> Event:
        with write(ledger.engine) as connection:
            campaign, steps = add_campaign(connection)
            touch = add_touch(connection, campaign, steps[0], TouchState.SENDING, recipient_id=recipient, claim=1)
        said = note(TouchState.BOUNCED, cause=cause, blame=blame)
        return event(touch, EventKind.DEAD, said, at_ms=int(NOW.timestamp() * 1000))

    def suppressed() -> list[tuple[str, str]]:
        with read(ledger.engine) as connection:
            return [tuple(row) for row in connection.execute(sa.text("SELECT address, reason FROM suppression"))]

    first, second = bounce(ada), bounce(ada)
    ledger.record(first, second, bounce(bob), bounce(bob, "message too big", Blame.MESSAGE), bounce(bob))
    ledger.record(first, second)  # A repeated event does not count again.
    assert suppressed() == []
    ledger.record(bounce(ada))
    assert suppressed() == [("ada@example.com", "soft_bounce")]


def test_soft_bounces_at_delivery_before_an_acceptance_are_no_row(ledger: Ledger) -> None:
    with write(ledger.engine) as connection:
        ada = add_recipient(connection)
    for minute, how in enumerate((BOUNCED, BOUNCED, ACCEPTED, BOUNCED)):
        with write(ledger.engine) as connection:
            campaign, steps = add_campaign(connection)
            touch = add_touch(connection, campaign, steps[0], TouchState.SENDING, recipient_id=ada, claim=1)
        ledger.record(event(touch, *how, at_ms=int(NOW.timestamp() * 1000) - 600_000 + minute * 60_000))
    assert ledger.scalar("SELECT count(*) FROM suppression") == 0


@pytest.mark.parametrize("kind", [EventKind.RETRY, EventKind.DEAD])
def test_what_the_queue_says_on_its_own_fits_the_ledger_however_long_it_is(ledger: Ledger, kind: EventKind) -> None:
    touch_id = ledger.touch(TouchState.QUEUED)
    ledger.record(event(touch_id, kind, cause="handler: " + "x" * 2_000, error="\0" + "ä" * 2_000))
    assert ledger.row(touch_id).state is not TouchState.QUEUED
    said = ledger.row(touch_id).reply
    assert said is not None
    assert 100 <= len(said) <= 500


@pytest.mark.parametrize(("limit", "suppressed"), [(1, 1), (2, 0)])
def test_how_many_soft_bounces_suppress_is_for_the_settings_to_say(ledger: Ledger, limit: int, suppressed: int) -> None:
    ledger.bounce = BounceSettings(soft_limit=limit)
    ledger.record(event(ledger.touch(TouchState.SENDING), *BOUNCED))
    assert ledger.scalar("SELECT count(*) FROM suppression") == suppressed
