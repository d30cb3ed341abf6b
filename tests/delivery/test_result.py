"""The result of a delivery: what the version before put into the queue is read, and the same bytes are written."""

from __future__ import annotations

import pytest

from postroad.delivery.outcome import classify_reply
from postroad.delivery.result import MAX_REPLY, DeliveryResult, DeliveryVerdict, Pause, decode_result, encode_result
from postroad.errors import Blame
from postroad.smtp.reply import Phase, Reply
from postroad.store.ledger import TouchState

WRITTEN_BEFORE = [
    (
        (
            b"\x86\xa4type\xabdelivery.v1\xa5state\xa8accepted\xa5cause\xa8accepted\xaareply_code\xcc\xfa"
            b"\xadenhanced_code\xa52.0.0\xa5reply\xac250 2.0.0 ok"
        ),
        DeliveryResult(
            state=TouchState.ACCEPTED, cause="accepted", reply_code=250, enhanced_code="2.0.0", reply="250 2.0.0 ok"
        ),
    ),
    (
        (
            b"\x87\xa4type\xabdelivery.v1\xa5state\xa8deferred\xa5cause\xb4mailbox full, so far\xa5blame\xa9recipient"
            b"\xaareply_code\xcd\x01\xc4\xadenhanced_code\xa54.2.2\xa5reply\xae452 4.2.2 full"
        ),
        DeliveryResult(
            state=TouchState.DEFERRED,
            cause="mailbox full, so far",
            blame=Blame.RECIPIENT,
            reply_code=452,
            enhanced_code="4.2.2",
            reply="452 4.2.2 full",
        ),
    ),
    (
        (
            b"\x88\xa4type\xabdelivery.v1\xa5state\xa7bounced\xa5cause\xafno such mailbox\xa5blame\xa9recipient"
            b"\xaareply_code\xcd\x02&\xa5reply\xa6550 no\xa8suppress\xc3\xa5words\xb80123456789abcdef01234567"
        ),
        DeliveryResult(
            state=TouchState.BOUNCED,
            cause="no such mailbox",
            blame=Blame.RECIPIENT,
            reply_code=550,
            reply="550 no",
            suppress=True,
            words="0123456789abcdef01234567",
        ),
    ),
    (b"\x82\xa4type\xabdelivery.v1\xa5state\xa6queued", DeliveryResult(state=TouchState.QUEUED)),
]


@pytest.mark.parametrize(("note", "result"), WRITTEN_BEFORE, ids=[result.state for _, result in WRITTEN_BEFORE])
def test_the_format_of_notes_is_that_of_the_version_before(note: bytes, result: DeliveryResult) -> None:
    assert decode_result(note) == result
    assert encode_result(result) == note


def test_what_only_the_worker_needs_is_not_encoded() -> None:
    result = DeliveryResult(state=TouchState.DEFERRED, cause="route down", delay_ms=5_000, pause=Pause.ROUTE)
    assert decode_result(encode_result(result)) == DeliveryResult(state=TouchState.DEFERRED, cause="route down")


def test_the_ledger_gets_the_beginning_of_a_long_reply_and_the_queue_all_of_it() -> None:
    reply = Reply(Phase.RCPT, 550, "5.1.1", "no such user, " + "which is said at length, " * 40)
    result = classify_reply(reply, deferrals=0)
    assert result.reply == str(reply)
    assert decode_result(encode_result(result)).reply == str(reply)[:MAX_REPLY]


@pytest.mark.parametrize(
    ("state", "delay_ms", "verdict"),
    [
        (TouchState.ACCEPTED, None, DeliveryVerdict.ACCEPTED),
        (TouchState.DEFERRED, None, DeliveryVerdict.RETRY),
        (TouchState.DEFERRED, 0, DeliveryVerdict.DEFER),
        (TouchState.BOUNCED, None, DeliveryVerdict.BOUNCED),
        (TouchState.DEAD, None, DeliveryVerdict.DEAD),
        (TouchState.UNKNOWN, None, DeliveryVerdict.UNKNOWN),
    ],
)
def test_the_verdict_follows_from_the_state(state: TouchState, delay_ms: int | None, verdict: DeliveryVerdict) -> None:
    assert DeliveryResult(state=state, delay_ms=delay_ms).verdict is verdict
