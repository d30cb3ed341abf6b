"""A program requests messages: each is sent once, whatever is repeated, concurrent or interrupted."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from postroad.app.message_desk import AcceptedRequest, MessageDesk
from postroad.app.message_order import FieldError, KeyReusedError, MessageOrder, RequestedFile
from postroad.campaign.status import finish_if_done, summary
from postroad.delivery.job import SEND_QUEUE
from postroad.errors import StateError
from postroad.explain.story import tell_story
from postroad.operations import campaigns
from postroad.settings import UnsubscribeScope
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress
from postroad.store.unsubscribe import unsubscribe_touch
from tests.api.installation import NEWS, RECEIPT, Installation

ADA = "ada@example.org"
ORDER = MessageOrder(
    key="order-1", campaign="receipt", to=ADA, fields={"number": "1", "amount": "49.90"}, transactional=True
)


async def request(installation: Installation, order: MessageOrder) -> AcceptedRequest:
    return await MessageDesk(installation.context).accept(order, by="shop")


async def test_a_requested_message_arrives_with_its_fields_and_attachments(installation: Installation) -> None:
    installation.launch(RECEIPT)
    file = RequestedFile(name="Rechnung №1.pdf", media_type="application/pdf", octets=bytes(range(256)))
    accepted = await request(installation, replace(ORDER, to="Ada@Example.ORG", files=[file]))
    assert (accepted.to, accepted.state, accepted.repeated) == ("ada@example.org", TouchState.PLANNED, False)
    assert await installation.jobs() == 1
    await installation.work()
    [mail] = installation.mailbox.mails
    assert mail["Subject"] == "Receipt 1"
    body = mail.get_body(("plain",))
    assert body is not None
    assert "Dear customer: 49.90" in body.get_content()
    [attachment] = mail.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content()) == (file.name, file.octets)
    assert installation.touches() == [(accepted.touch_id, "accepted")]


async def test_one_recipient_gets_a_message_for_each_key(installation: Installation) -> None:
    installation.launch(RECEIPT)
    first = await request(installation, ORDER)
    second = await request(installation, replace(ORDER, key="order-2", fields={"number": "2"}))
    assert first.touch_id != second.touch_id
    await installation.work()
    assert sorted(mail["Subject"] for mail in installation.mailbox.mails) == ["Receipt 1", "Receipt 2"]
    assert summary(installation.engine, "receipt").audience == 2


async def test_a_repetition_answers_the_same_and_sends_nothing(installation: Installation) -> None:
    installation.launch(RECEIPT)
    first = await request(installation, ORDER)
    await installation.work()
    again = await request(installation, ORDER)
    assert again == replace(first, repeated=True)
    assert await installation.jobs() == 0
    assert len(installation.mailbox.contents) == 1


async def test_concurrent_requests_with_one_key_make_one_message(installation: Installation) -> None:
    installation.launch(RECEIPT)
    desks = [MessageDesk(installation.context) for _ in range(8)]
    answers = await asyncio.gather(*(desk.accept(ORDER, by="shop") for desk in desks))
    assert len({answer.touch_id for answer in answers}) == 1
    assert [answer.repeated for answer in answers].count(False) == 1
    assert installation.count("message_request") == 1
    await installation.work()
    assert len(installation.mailbox.contents) == 1


async def test_a_key_with_other_content_is_refused(installation: Installation) -> None:
    installation.launch(RECEIPT)
    await request(installation, ORDER)
    for other in (
        replace(ORDER, to="bob@example.org"),
        replace(ORDER, fields={"number": "2"}),
        replace(ORDER, transactional=False),
        replace(ORDER, files=[RequestedFile(name="a.txt", media_type="text/plain", octets=b"a")]),
    ):
        with pytest.raises(KeyReusedError, match="another content"):
            await request(installation, other)
    assert installation.count("touch") == 1


async def test_a_request_whose_queue_is_away_is_sent_by_the_next_pass(installation: Installation) -> None:
    installation.launch(RECEIPT)
    installation.redis.kill()
    accepted = await request(installation, ORDER)
    assert installation.touches() == [(accepted.touch_id, "planned")]
    installation.redis.start()
    await installation.advance()
    await installation.work()
    assert len(installation.mailbox.contents) == 1


async def test_a_repetition_submits_what_a_crash_left_planned(installation: Installation) -> None:
    installation.launch(RECEIPT)
    installation.redis.kill()
    first = await request(installation, ORDER)
    installation.redis.start()
    again = await request(installation, ORDER)
    assert again.touch_id == first.touch_id
    assert await installation.jobs() == 1
    await installation.advance()
    assert await installation.jobs() == 1, "a pass submits nothing twice"


async def test_a_message_of_a_paused_campaign_waits_for_its_resumption(installation: Installation) -> None:
    installation.launch(RECEIPT)
    queue = await installation.context.queue(SEND_QUEUE)
    now = installation.context.clock.now()
    await campaigns.pause(installation.engine, queue, "receipt", by="a test", now=now)
    await request(installation, ORDER)
    assert await installation.jobs() == 0
    await campaigns.resume(installation.engine, queue, "receipt", by="a test", now=now)
    await installation.advance()
    await installation.work()
    assert len(installation.mailbox.contents) == 1


async def test_a_closed_campaign_refuses_requests_answers_repetitions_and_finishes(installation: Installation) -> None:
    installation.launch(RECEIPT)
    first = await request(installation, ORDER)
    now = installation.context.clock.now()
    assert not finish_if_done(installation.engine, "receipt", now), "it stays open"
    campaigns.close(installation.engine, "receipt", now)
    with pytest.raises(StateError, match="campaign receipt is closed"):
        await request(installation, replace(ORDER, key="order-2"))
    assert (await request(installation, ORDER)).touch_id == first.touch_id
    assert installation.count("message_request") == 1, "a refused request keeps no key"
    await installation.work()
    assert finish_if_done(installation.engine, "receipt", now)
    with pytest.raises(StateError, match="campaign receipt is finished"):
        await request(installation, replace(ORDER, key="order-2"))


async def test_mail_that_is_not_transactional_needs_permission(installation: Installation) -> None:
    installation.launch(NEWS)
    order = MessageOrder(key="n-1", campaign="news", to=ADA)
    with pytest.raises(StateError, match="is not a member of audience customers"):
        await request(installation, order)
    installation.add_members(ADA)
    await request(installation, order)
    await installation.work()
    assert [mail["Subject"] for mail in installation.mailbox.mails] == ["News for Ada"]


async def test_a_key_cannot_make_marketing_transactional(installation: Installation) -> None:
    installation.launch(NEWS)
    with pytest.raises(FieldError, match="not transactional") as caught:
        await request(installation, MessageOrder(key="n-1", campaign="news", to=ADA, transactional=True))
    assert caught.value.field == "transactional"


@pytest.mark.parametrize(
    ("reasons", "state"),
    [
        ((SuppressionReason.UNSUBSCRIBE,), TouchState.PLANNED),
        ((SuppressionReason.COMPLAINT,), TouchState.SUPPRESSED),
        ((SuppressionReason.HARD_BOUNCE,), TouchState.SUPPRESSED),
        ((SuppressionReason.MANUAL,), TouchState.SUPPRESSED),
        ((SuppressionReason.UNSUBSCRIBE, SuppressionReason.COMPLAINT), TouchState.SUPPRESSED),
        ((SuppressionReason.UNSUBSCRIBE, SuppressionReason.HARD_BOUNCE), TouchState.SUPPRESSED),
        ((SuppressionReason.HARD_BOUNCE, SuppressionReason.UNSUBSCRIBE), TouchState.SUPPRESSED),
    ],
)
async def test_an_unsubscribe_alone_does_not_stop_a_receipt(
    installation: Installation, reasons: tuple[SuppressionReason, ...], state: TouchState
) -> None:
    installation.launch(RECEIPT)
    installation.launch(NEWS)
    installation.add_members(ADA)
    with write(installation.engine) as connection:
        for reason in reasons:
            suppress(connection, [ADA], reason, "a test", installation.context.clock.now())
    assert (await request(installation, ORDER)).state is state
    assert (await request(installation, replace(ORDER, key="2", transactional=False))).state is TouchState.SUPPRESSED
    news = await request(installation, MessageOrder(key="n-1", campaign="news", to=ADA))
    assert news.state is TouchState.SUPPRESSED
    await installation.work()
    assert len(installation.mailbox.contents) == (1 if state is TouchState.PLANNED else 0)


async def test_a_receipt_that_waits_survives_an_unsubscribe_and_ends_with_a_complaint(
    installation: Installation,
) -> None:
    installation.launch(RECEIPT)
    installation.launch(NEWS)
    installation.add_members(ADA)
    receipt = await request(installation, ORDER)
    news = await request(installation, MessageOrder(key="n-1", campaign="news", to=ADA))
    second = await request(installation, replace(ORDER, key="order-2"))
    now = installation.context.clock.now()
    with write(installation.engine) as connection:
        unsubscribe_touch(connection, news.touch_id, "a test", now, UnsubscribeScope.EVERYWHERE)
    await installation.advance()
    states = dict(installation.touches())
    assert (states[receipt.touch_id], states[news.touch_id]) == ("queued", "suppressed")
    story = await tell_story(installation.context, str(receipt.touch_id))
    assert not [hold for hold in story.messages[0].holds if hold.cause == "suppressed"]
    with write(installation.engine) as connection:
        suppress(connection, [ADA], SuppressionReason.COMPLAINT, "a test", now)
    story = await tell_story(installation.context, str(receipt.touch_id))
    assert [hold.words for hold in story.messages[0].holds if hold.cause == "suppressed"]
    await installation.work()
    assert installation.mailbox.contents == []
    assert dict(installation.touches())[second.touch_id] == "suppressed", "the admission decides"


async def test_the_story_of_a_message_says_who_requested_it(installation: Installation) -> None:
    installation.launch(RECEIPT)
    accepted = await request(installation, ORDER)
    story = await tell_story(installation.context, str(accepted.touch_id))
    words = [entry.words for entry in story.timeline if entry.kind == "requested"]
    assert words == ["API key shop requested a transactional message, with the idempotency key order-1."]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"key": ""}, "Idempotency-Key"),
        ({"key": "x" * 201}, "Idempotency-Key"),
        ({"key": "a b"}, "Idempotency-Key"),
        ({"to": "ada"}, "to"),
        ({"fields": {}}, "fields"),
        ({"fields": {"number": "1", "amount": "much"}}, "fields.amount"),
        ({"fields": {"number": "1", "unsubscribe_url": "https://x.example"}}, "fields.unsubscribe_url"),
        ({"fields": {"number": "1", "a-b": "x"}}, "fields.a-b"),
        ({"fields": {"number": "\0"}}, "fields.number"),
        ({"fields": {"number": "x" * 10_001}}, "fields.number"),
        ({"fields": {f"f{number}": "" for number in range(101)}}, "fields"),
        ({"files": [RequestedFile(name="a/b", media_type="text/plain", octets=b"")]}, "attachments.0.name"),
        ({"files": [RequestedFile(name="a", media_type="text", octets=b"")]}, "attachments.0.type"),
        ({"files": [RequestedFile(name="a", media_type="a/b", octets=b"x" * 10_000_001)]}, "attachments"),
        ({"files": [RequestedFile(name="a", media_type="a/b", octets=b"")] * 21}, "attachments"),
    ],
)
async def test_a_request_that_is_not_valid_names_its_field_and_stores_nothing(
    installation: Installation, change: dict[str, object], field: str
) -> None:
    installation.launch(RECEIPT)
    with pytest.raises(FieldError) as caught:
        await request(installation, replace(ORDER, **change))  # type: ignore[arg-type]
    assert caught.value.field == field
    assert installation.count("message_request") == installation.count("touch") == 0


async def test_a_campaign_that_takes_no_requests_says_so(installation: Installation) -> None:
    installation.add_members(ADA)
    installation.apply(NEWS.replace("entry: api\n", ""))
    with pytest.raises(StateError, match="takes no requests"):
        await request(installation, MessageOrder(key="1", campaign="news", to=ADA))
    with pytest.raises(StateError, match="no campaign named 'nws'"):
        await request(installation, MessageOrder(key="1", campaign="nws", to=ADA))
    installation.apply(RECEIPT)
    with pytest.raises(StateError, match="campaign receipt is draft") as caught:
        await request(installation, ORDER)
    assert "postroad campaign launch receipt" in (caught.value.remedy or "")


async def test_a_campaign_ends_after_the_request_that_it_accepted(installation: Installation) -> None:
    """A close and a finish during requests lose none: each is refused, or its touch ends before the campaign does."""
    installation.launch(RECEIPT)
    desk = MessageDesk(installation.context)
    now = installation.context.clock.now()

    async def close() -> None:
        await asyncio.sleep(0)
        await asyncio.to_thread(campaigns.close, installation.engine, "receipt", now)
        await asyncio.to_thread(finish_if_done, installation.engine, "receipt", now)

    orders = [replace(ORDER, key=f"order-{number}") for number in range(20)]
    *answers, _ = await asyncio.gather(
        *(desk.accept(order, by="shop") for order in orders), close(), return_exceptions=True
    )
    accepted = [answer for answer in answers if isinstance(answer, AcceptedRequest)]
    assert all(isinstance(answer, AcceptedRequest | StateError) for answer in answers), answers
    with read(installation.engine) as connection:
        state = connection.execute(sa.text("SELECT state FROM campaign WHERE name = 'receipt'")).scalar_one()
    assert installation.count("touch") == len(accepted)
    assert state == (CampaignState.RUNNING if accepted else CampaignState.FINISHED)
