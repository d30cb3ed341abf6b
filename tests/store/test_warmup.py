"""Counts of sent mail, from the delivery events of the ledger."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from postroad.store.engine import read, write
from postroad.store.ledger import TouchState, record_complaint, record_reply, record_unsubscribe
from postroad.store.touches.results import insert_events
from postroad.store.warmup import Span, accepted_mail, sent_mail
from tests.events_out.events import add_sent_touch, result
from tests.store.rows import NOW


def test_what_a_recipient_does_is_no_further_accepted_message(engine: sa.Engine) -> None:
    with write(engine) as connection:
        touch = add_sent_touch(connection, "ada@example.org")
        insert_events(connection, [result(touch, TouchState.ACCEPTED)])
        record_unsubscribe(connection, touch, "by link", NOW)
        record_reply(connection, touch, "d1", NOW)
        record_complaint(connection, touch, "d2", NOW)
    day = Span(NOW.date(), NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    with read(engine) as connection:
        assert [row.messages for row in accepted_mail(connection, [day])] == [1]
        [sent] = sent_mail(connection, ["news@example.com"], [day], hard_causes=["no-mailbox"])
    assert (sent.attempts, sent.accepted) == (1, 1)
