"""Complaints and requests to unsubscribe: which touch they belong to, and what they suppress."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from postroad.bounce.classify import BounceClass
from postroad.bounce.intake import Intake
from postroad.bounce.match import MatchedBy
from postroad.bounce.report import Envelope
from postroad.clock import SystemClock
from postroad.queue import Queue
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState, delivery_events
from postroad.store.retention import Before, delete_old, delete_old_mails
from tests.bounce import mails
from tests.bounce.ledger import LedgerFixture
from tests.store.rows import NOW


def test_a_complaint_that_a_person_forwards_is_not_theirs(ledger: LedgerFixture) -> None:
    touch = ledger.touch(ledger.recipient("ada@example.org"))
    report = mails.feedback(returned="Message-ID: <another@example.net>\nFrom: a@example.net\n\nHi.")
    raw = f"In-Reply-To: {ledger.message_id(touch)}\r\n".encode() + report
    ledger.process(raw)
    assert ledger.suppressed() == {}


def test_a_complaint_is_matched_by_the_message_id_that_it_returns_and_is_for_good(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    touch = ledger.touch(ada)
    ledger.process(ledger.dsn_of(touch))
    raw = mails.feedback(returned=f"Message-ID: {ledger.message_id(touch)}\nFrom: news@example.com\n\nNews.")
    processed = ledger.process(raw)
    assert (processed.verdict, processed.matched_by) == (BounceClass.COMPLAINT, MatchedBy.MESSAGE_ID)
    assert ledger.suppressed() == {ledger.address(ada): "complaint"}


def test_a_complaint_is_one_event_of_its_message(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    touch = ledger.touch(ada)
    raw = mails.feedback(returned=f"Message-ID: {ledger.message_id(touch)}\nFrom: news@example.com\n\nNews.")
    for _ in range(2):
        ledger.process(raw)
    with read(ledger.engine) as connection:
        events = [(row.state, row.cause) for row in delivery_events(connection, touch)]
    assert events == [("accepted", "complaint")]


def test_a_complaint_is_matched_by_the_return_path_that_it_returns(ledger: LedgerFixture) -> None:
    touch = ledger.touch(ledger.recipient())
    by_header = mails.feedback(returned=f"Return-Path: <{ledger.return_path(touch)}>\nFrom: news@example.com\n\nNews.")
    by_field = mails.feedback(more=f"Original-Mail-From: <{ledger.return_path(touch)}>\n")
    assert [ledger.process(raw).touch_id for raw in (by_header, by_field)] == [touch, touch]


def test_a_mail_unsubscribes_also_where_its_touch_was_deleted(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    touch, waiting = ledger.touch(ada), ledger.touch(ada, TouchState.QUEUED)
    with write(ledger.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = 'finished' WHERE id IN (SELECT min(id) FROM campaign)"))
    later = NOW + timedelta(days=1_000)
    assert delete_old(ledger.engine, Before(later, later, later), later).touches == 1
    envelope = Envelope(recipient=ledger.unsubscribe(touch))
    raw = mails.mail("", From="ada@example.org", To=ledger.unsubscribe(touch), Subject="unsubscribe")
    assert ledger.process(raw, envelope).ended == [waiting]
    assert ledger.suppressed() == {ledger.address(ada): "unsubscribe"}
    assert ledger.state(waiting) is TouchState.SUPPRESSED


async def test_a_mail_whose_row_was_deleted_is_not_judged_again(ledger: LedgerFixture, bounces: Queue) -> None:
    touch = ledger.touch(ledger.recipient())
    raw = mails.dsn(to=ledger.return_path(touch))
    ledger.process(raw)
    with write(ledger.engine) as connection:
        connection.execute(sa.text("DELETE FROM bounce_effect"))
    assert delete_old_mails(ledger.engine, NOW + timedelta(days=1_000)) == 1
    intake = Intake(engine=ledger.engine, queue=bounces, clock=SystemClock())
    assert not (await intake.submit(raw, Envelope())).new
    assert (await bounces.stats()).queued == 0
    assert await intake.resume() == 0


def test_a_mail_to_the_address_of_list_unsubscribe_unsubscribes(ledger: LedgerFixture) -> None:
    ada = ledger.recipient()
    touch = ledger.touch(ada)
    raw = mails.mail("", From="ada@example.org", To=ledger.unsubscribe(touch), Subject="unsubscribe")
    assert ledger.process(raw).verdict is BounceClass.UNSUBSCRIBE
    assert ledger.suppressed() == {ledger.address(ada): "unsubscribe"}
