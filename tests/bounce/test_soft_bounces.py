"""Soft bounces in a row suppress an address; those about us suppress no one."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.bounce.classify import BounceClass
from postroad.store.engine import read
from postroad.store.ledger import TouchState, delivery_events
from tests.bounce.ledger import LedgerFixture
from tests.store.rows import NOW

DAY = timedelta(days=1)


def test_repeated_sender_faults_suppress_no_one(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    said = "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org"
    for _ in range(5):
        touch = ledger.touch(ada)
        raw = ledger.dsn_of(touch, status="5.7.1", diagnostic=said)
        assert ledger.process(raw).verdict is BounceClass.BLOCK
        assert ledger.state(touch) is TouchState.BOUNCED
    assert ledger.suppressed() == {}
    # Nor do they make a row with what is the recipient's.
    ledger.process(ledger.dsn_of(ledger.touch(ada), status="5.2.2", diagnostic="552 5.2.2 full"))
    assert ledger.suppressed() == {}


def _full(ledger: LedgerFixture, touch: int, day: int) -> BounceClass:
    raw = ledger.dsn_of(touch, status="5.2.2", diagnostic="552 5.2.2 mailbox is full")
    return ledger.process(raw, now=NOW + day * DAY).verdict


def test_the_third_soft_bounce_in_a_row_suppresses(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    for day in (0, 1):
        assert _full(ledger, ledger.touch(ada, settled_at=NOW + day * DAY), day) is BounceClass.SOFT
        assert ledger.suppressed() == {}
    _full(ledger, ledger.touch(ada, settled_at=NOW + 2 * DAY), 2)
    assert ledger.suppressed() == {ledger.address(ada): "soft_bounce"}


def test_mail_that_was_taken_in_between_ends_the_row(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    for day in (0, 1):
        _full(ledger, ledger.touch(ada, settled_at=NOW + day * DAY), day)
    ledger.touch(ada, settled_at=NOW + 2 * DAY)
    _full(ledger, ledger.touch(ada, settled_at=NOW + 3 * DAY), 3)
    assert ledger.suppressed() == {}


def test_soft_bounces_of_long_ago_are_no_row(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    for day in (0, 8, 16):
        _full(ledger, ledger.touch(ada, settled_at=NOW + day * DAY), day)
    assert ledger.suppressed() == {}


@pytest.mark.parametrize(("words", "left"), [("5.1.1 Rejected", 0), ("5.1.1 User unknown", 8)])
def test_the_same_words_to_many_recipients_are_about_us(ledger: LedgerFixture, words: str, left: int) -> None:
    touches = [ledger.touch(ledger.recipient(f"user{number}@provider.example")) for number in range(8)]
    verdicts = [
        ledger.process(ledger.dsn_of(touch, diagnostic=f"550 {words} <{ledger.address_of(touch)}>")).verdict
        for touch in touches
    ]
    assert len(ledger.suppressed()) == left
    assert verdicts[-1] is (BounceClass.HARD if left else BounceClass.BLOCK)
    assert {ledger.state(touch) for touch in touches} == {TouchState.BOUNCED}
    with read(ledger.engine) as connection:
        causes = {event.cause for touch in touches for event in delivery_events(connection, touch)}
        blames = set(connection.execute(sa.text("SELECT blame FROM delivery_event")).scalars())
    assert blames == {"recipient" if left else "sender"}
    assert causes == {"bounced: no such mailbox" if left else "the same words to many recipients"}


def test_several_mails_about_one_touch_are_one_soft_bounce(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    touch = ledger.touch(ada)
    for number in range(4):
        said = f"552 5.2.2 mailbox is full, attempt {number}"
        ledger.process(ledger.dsn_of(touch, status="5.2.2", diagnostic=said))
    assert ledger.suppressed() == {}
