"""The same words to many recipients of one provider count against none of them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from postroad.store.engine import read, write
from postroad.store.ledger import DeliveryEvent, TouchState
from postroad.store.same_words import MANY_RECIPIENTS, SAME_WORDS, WINDOW, blame_sender_for, words_key
from postroad.store.suppression import LiftedSuppression, SuppressionReason, suppress
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

KEY = words_key("gmx", "rejected")
ASKED = (SuppressionReason.UNSUBSCRIBE, SuppressionReason.COMPLAINT, SuppressionReason.MANUAL)
OTHER_KEY = words_key("example.org", "rejected")


class Refusals:
    """Bounces of recipients, as the recorder writes them."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def add(self, address: str, key: str | None = KEY, *, at: datetime = NOW, blame: str = "recipient") -> set[str]:
        """Record a bounce that suppresses, and return the keys that are about the sender."""
        with write(self.engine) as connection:
            campaign, steps = add_campaign(connection)
            found = connection.execute(
                sa.text("SELECT id FROM recipient WHERE address = :address"), {"address": address}
            ).scalar()
            recipient = int(found) if found else add_recipient(connection, address)
            touch = add_touch(connection, campaign, steps[0], TouchState.BOUNCED, recipient_id=recipient)
            row = {"touch_id": touch, "state": TouchState.BOUNCED, "attempt": 1, "cause": "no such mailbox"}
            values = {"uid": f"{touch}-1", "at": at, "blame": blame, "words": key, **row}
            connection.execute(sa.insert(DeliveryEvent).values(**values))
            suppress(connection, [address], SuppressionReason.HARD_BOUNCE, "reply at delivery", at)
            return blame_sender_for(connection, {key} if key else set(), at)

    def suppressed(self) -> set[str]:
        with read(self.engine) as connection:
            return set(connection.execute(sa.text("SELECT address FROM suppression")).scalars())

    def blames(self) -> list[tuple[str, str]]:
        with read(self.engine) as connection:
            return [tuple(row) for row in connection.execute(sa.text("SELECT blame, cause FROM delivery_event"))]


@pytest.fixture
def refusals(engine: sa.Engine) -> Refusals:
    return Refusals(engine)


def test_words_that_many_got_are_about_the_sender(refusals: Refusals) -> None:
    for number in range(MANY_RECIPIENTS - 1):
        assert refusals.add(f"r{number}@gmx.example") == set()
    assert len(refusals.suppressed()) == MANY_RECIPIENTS - 1
    assert refusals.add("last@gmx.example") == {KEY}
    assert refusals.suppressed() == set()
    assert set(refusals.blames()) == {("sender", SAME_WORDS)}
    with read(refusals.engine) as connection:
        lifted = connection.execute(sa.select(LiftedSuppression.__table__.c.why)).scalars().all()  # type: ignore[attr-defined]
    assert lifted == [SAME_WORDS] * MANY_RECIPIENTS
    # From then on each of them is.
    assert refusals.add("next@gmx.example", at=NOW + timedelta(minutes=1)) == {KEY}


def test_one_recipient_often_is_not_many(refusals: Refusals) -> None:
    for _ in range(3 * MANY_RECIPIENTS):
        assert refusals.add("ada@gmx.example") == set()
    assert refusals.suppressed() == {"ada@gmx.example"}


def test_receivers_are_counted_apart(refusals: Refusals) -> None:
    for number in range(MANY_RECIPIENTS - 1):
        refusals.add(f"r{number}@gmx.example")
    assert refusals.add("ada@example.org", OTHER_KEY) == set()
    assert len(refusals.suppressed()) == MANY_RECIPIENTS


def test_words_of_long_ago_do_not_count(refusals: Refusals) -> None:
    for number in range(3 * MANY_RECIPIENTS):
        assert refusals.add(f"r{number}@gmx.example", at=NOW + number * WINDOW / (MANY_RECIPIENTS - 1)) == set()


def test_who_bounced_for_another_reason_stays_suppressed(refusals: Refusals) -> None:
    refusals.add("r0@gmx.example", None)
    for number in range(MANY_RECIPIENTS):
        refusals.add(f"r{number}@gmx.example")
    assert refusals.suppressed() == {"r0@gmx.example"}


@pytest.mark.parametrize(
    "reason", [SuppressionReason.UNSUBSCRIBE, SuppressionReason.COMPLAINT, SuppressionReason.MANUAL]
)
def test_what_a_person_asked_for_stays(refusals: Refusals, reason: SuppressionReason) -> None:
    with write(refusals.engine) as connection:
        suppress(connection, ["r0@gmx.example"], reason, "asked", NOW)
    for number in range(MANY_RECIPIENTS):
        refusals.add(f"r{number}@gmx.example")
    assert refusals.suppressed() == {"r0@gmx.example"}


def test_an_older_suppression_stays(refusals: Refusals) -> None:
    with write(refusals.engine) as connection:
        suppress(connection, ["r0@gmx.example"], SuppressionReason.HARD_BOUNCE, "a file", NOW - 2 * WINDOW)
    for number in range(MANY_RECIPIENTS):
        refusals.add(f"r{number}@gmx.example")
    assert refusals.suppressed() == {"r0@gmx.example"}
