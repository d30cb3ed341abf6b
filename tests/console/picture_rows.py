"""The rows of the pictures of the console: an installation in the morning, the same at each run."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from postroad.bounce.classify import BounceClass
from postroad.event_types import EventType
from postroad.events_out.client import WebhookOutcome
from postroad.store.bounce import BounceEffectKind, BounceMail, add_effects, finish_mail, save_mail
from postroad.store.campaign import CampaignState
from postroad.store.event_stream import message_id, newest_event
from postroad.store.ledger import TouchState, record_reply
from postroad.store.suppression import Entry, SuppressionReason, save_suppressions
from postroad.store.traffic import Grain, Traffic
from postroad.store.variant import VariantTest
from postroad.store.webhook_log import LoggedAttempt, log_attempts
from postroad.store.webhook_out import (
    NewDelivery,
    WebhookDeliveryState,
    add_deliveries,
    add_endpoint,
    settle_deliveries,
)
from tests.store.rows import add_audience, add_campaign, add_recipient, add_touch

NAMES = (
    "ada",
    "grace",
    "alan",
    "barbara",
    "edsger",
    "frances",
    "donald",
    "hedy",
    "john",
    "katherine",
    "leslie",
    "mary",
)
HOSTS = ("example.org", "mail.example.net", "post.example.com")
SPLIT = {
    "variants": [{"name": "question", "share": 50}, {"name": "plain", "share": 50}],
    "winner": {"by": "replied", "after_ms": 172_800_000, "at_most": 50},
}
STATES = (
    (TouchState.ACCEPTED, 196),
    (TouchState.BOUNCED, 6),
    (TouchState.DEFERRED, 9),
    (TouchState.QUEUED, 21),
    (TouchState.AWAITING, 240),
    (TouchState.SUPPRESSED, 5),
)
CAUSES = (
    (TouchState.UNKNOWN, "connection lost after the message was sent", 7),
    (TouchState.UNKNOWN, "queue lost", 2),
    (TouchState.DEAD, "sender authentication", 14),
    (TouchState.DEAD, "no such file: images/logo.png", 3),
)
RETURNED = (
    (BounceClass.HARD, "no such mailbox", 18),
    (BounceClass.SOFT, "mailbox full", 7),
    (BounceClass.AUTO_REPLY, "Auto-Submitted", 24),
    (BounceClass.UNRELATED, "written by a person", 12),
    (BounceClass.BLOCK, "reputation", 3),
    (BounceClass.COMPLAINT, "feedback report", 2),
)
WEBHOOKS = 15
REPORT = """\
From: Mail Delivery System <MAILER-DAEMON@mx1.example.org>
To: <bounce+1-4f6a@example.com>
Subject: Undelivered Mail Returned to Sender
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

<{address}>: host mx1.example.org said: 550 5.1.1 No such mailbox (in reply to RCPT TO command)

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx1.example.org

Final-Recipient: rfc822; {address}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 No such mailbox

--b--
"""
_MOVE = sa.text("UPDATE touch SET cause = :cause, variant = :variant, reply = :reply WHERE id = :id")


def address(number: int) -> str:
    """Return the address of a person."""
    return f"{NAMES[number % len(NAMES)]}.{number}@{HOSTS[number % len(HOSTS)]}"


def fill_story(connection: sa.Connection, now: datetime) -> None:
    """Make the rows."""
    people = [add_recipient(connection, address(number)) for number in range(480)]
    readers = add_audience(connection, people, name="readers")
    _fill_campaign(connection, readers, people, now)
    _fill_undecided(connection, readers, people, now)
    _fill_returned(connection, now)
    _fill_traffic(connection, now)
    _fill_webhooks(connection, now)
    entries = [
        Entry(address(number), reason, source, now - timedelta(hours=number))
        for reason, source, first, number_of in (
            (SuppressionReason.UNSUBSCRIBE, "one click", 300, 31),
            (SuppressionReason.HARD_BOUNCE, "550 5.1.1 No such mailbox", 196, 6),
            (SuppressionReason.COMPLAINT, "feedback report", 360, 2),
            (SuppressionReason.MANUAL, "grace@example.com in the console: asked by phone", 370, 3),
        )
        for number in range(first, first + number_of)
    ]
    save_suppressions(connection, entries)


def _fill_campaign(connection: sa.Connection, audience: int, people: list[int], now: datetime) -> None:
    launched = now - timedelta(hours=20)
    spring, (step,) = add_campaign(
        connection, name="spring", audience_id=audience, launched_at=launched, steps=(SPLIT,)
    )
    waiting = iter(people)
    for state, number in STATES:
        for place in range(number):
            ended = launched + timedelta(minutes=5 * place) if state.ended else None
            touch = add_touch(
                connection, spring, step, state, recipient_id=next(waiting), due_at=launched, settled_at=ended
            )
            variant = None if state is TouchState.AWAITING else ("question", "plain")[place % 2]
            reply = {
                TouchState.BOUNCED: "550 5.1.1 No such mailbox",
                TouchState.DEFERRED: "421 4.7.0 Too many messages, try again later",
            }.get(state)
            connection.execute(_MOVE, {"cause": "", "variant": variant, "reply": reply, "id": touch})
            if state is TouchState.ACCEPTED and place % (8 if variant == "question" else 21) == 0:
                record_reply(connection, touch, f"reply to {touch}", now - timedelta(hours=1))
    test = {"campaign_id": spring, "begun_at": launched, "decide_at": launched + timedelta(days=2), "cursor": 0}
    connection.execute(sa.insert(VariantTest).values(step_id=step, planned=477, tested=237, **test))
    connection.execute(
        sa.text("UPDATE touch SET next_at = :at WHERE state = 'deferred'"),
        {"at": f"{now + timedelta(minutes=40):%Y-%m-%d %H:%M:%S.%f}"},
    )
    add_campaign(connection, name="summer", audience_id=audience, state=CampaignState.DRAFT)


def _fill_undecided(connection: sa.Connection, audience: int, people: list[int], now: datetime) -> None:
    winter, (step,) = add_campaign(
        connection, name="winter", audience_id=audience, launched_at=now - timedelta(days=40)
    )
    waiting = iter(people)
    for state, cause, number in CAUSES:
        for place in range(number):
            at = now - timedelta(hours=2, minutes=3 * place)
            touch = add_touch(connection, winter, step, state, recipient_id=next(waiting), due_at=at, settled_at=at)
            connection.execute(_MOVE, {"cause": cause, "variant": None, "reply": cause, "id": touch})


def _fill_returned(connection: sa.Connection, now: datetime) -> None:
    number, first_bounced = 0, STATES[0][1]
    for verdict, rule, mails in RETURNED:
        for _ in range(mails):
            number += 1
            at = now - timedelta(minutes=97 * number)
            touch = first_bounced + 1 + number % STATES[1][1] if verdict is BounceClass.HARD else number
            mail = BounceMail(
                digest=f"{number:064x}",
                received_at=at,
                source="smtp",
                mail_from="",
                recipient="bounce+1-4f6a@example.com",
                raw=REPORT.format(address=address(touch - 1)).replace("\n", "\r\n").encode(),
            )
            save_mail(connection, mail)
            mail.processed_at, mail.kind, mail.verdict, mail.rule = at, "dsn", verdict.value, rule
            mail.touch_id, mail.matched_by = touch, "return-path"
            finish_mail(connection, mail)
            if verdict is BounceClass.HARD:
                effects = [
                    (BounceEffectKind.TOUCH_BOUNCED, touch, "was accepted: no such mailbox"),
                    (BounceEffectKind.ADDRESS_SUPPRESSED, touch, "hard_bounce"),
                ]
                add_effects(connection, mail.digest, effects, at)


def _fill_traffic(connection: sa.Connection, now: datetime) -> None:
    start = now.replace(second=0, microsecond=0)
    key = {"grain": Grain.TOTAL, "sender_id": 0, "provider": "", "campaign_id": 0, "slot": 0}
    rows = [
        {**key, "at": start - timedelta(minutes=minute), "outcome": outcome, "events": events}
        for minute in range(1, 1440, 2)
        for outcome, events in (
            ("accepted", 30 + round(820 * max(0.0, 1 - abs(minute - 640) / 520)) + minute * 7 % 23),
            ("deferred", 4 + minute * 5 % 31),
            ("bounced", minute * 3 % 8),
        )
        if events
    ]
    connection.execute(sa.insert(Traffic), rows)


def _fill_webhooks(connection: sa.Connection, now: datetime) -> None:
    add_endpoint(connection, "shop", newest_event(connection), now - timedelta(days=21))
    events = [NewDelivery(number, message_id(f"story:{number}")) for number in range(1, WEBHOOKS + 1)]
    ids = [delivery.id for delivery in add_deliveries(connection, "shop", 0, events, now - timedelta(seconds=40))]
    settle_deliveries(connection, ids[:2], WebhookDeliveryState.DEAD, now)
    settle_deliveries(connection, ids[2:-3], WebhookDeliveryState.DELIVERED, now)
    types = (EventType.BOUNCED, EventType.UNSUBSCRIBED, EventType.BOUNCED, EventType.COMPLAINED)
    for place, event in enumerate(events[2:-2]):
        failed = place in (4, WEBHOOKS - 5)
        row = LoggedAttempt(
            endpoint="shop",
            message_id=event.message_id,
            type=types[place % len(types)],
            attempt=2 if failed else 1,
            at=now - timedelta(minutes=3 * (WEBHOOKS - place)),
            duration_ms=15_000 if failed else 31 + place * 17 % 60,
            outcome=WebhookOutcome.TIMEOUT if failed else WebhookOutcome.DELIVERED,
            status=None if failed else 204,
            error="no response within 15 s" if failed else None,
        )
        log_attempts(connection, [row])
