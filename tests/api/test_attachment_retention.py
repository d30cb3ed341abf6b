"""Attachments of requested messages are deleted when they are old, and never before their message can no longer go."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.app.message_desk import AcceptedRequest, MessageDesk
from postroad.app.message_order import KeyReusedError, MessageOrder, RequestedFile
from postroad.app.replay import replay
from postroad.delivery.job import SEND_QUEUE
from postroad.store.attachment_retention import delete_old_attachments, sendable_states
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from tests.api.installation import RECEIPT, Installation

INVOICE = RequestedFile(name="invoice.pdf", media_type="application/pdf", octets=b"%PDF-1.7 of Ada")
OTHER = replace(INVOICE, octets=b"%PDF-1.7 of Bob")
ORDER = MessageOrder(
    key="order-1", campaign="receipt", to="ada@example.org", fields={"number": "1"}, files=[INVOICE], transactional=True
)
DAY = timedelta(days=1)


async def request(installation: Installation, order: MessageOrder) -> AcceptedRequest:
    return await MessageDesk(installation.context).accept(order, by="shop")


def delete(installation: Installation, *, steps: int = 50) -> int:
    """Delete what is older than tomorrow."""
    return delete_old_attachments(installation.engine, installation.context.clock.now() + DAY, steps=steps)


def attached(installation: Installation) -> list[bytes]:
    """The attachments of all mails that arrived."""
    return [part.get_content() for mail in installation.mailbox.mails for part in mail.iter_attachments()]


async def test_the_attachment_of_a_sent_message_goes_and_its_request_stays(installation: Installation) -> None:
    installation.launch(RECEIPT)
    first = await request(installation, ORDER)
    await installation.work()
    assert attached(installation) == [INVOICE.octets]
    assert installation.count("stored_file") == 1
    assert delete(installation) == 1
    assert installation.count("stored_file") == 0
    assert delete(installation) == 0
    again = await request(installation, ORDER)
    assert (again.touch_id, again.repeated) == (first.touch_id, True)
    with pytest.raises(KeyReusedError):
        await request(installation, replace(ORDER, files=[OTHER]))
    assert installation.count("stored_file") == 0


async def test_a_message_that_waits_keeps_its_attachment(installation: Installation) -> None:
    installation.launch(RECEIPT)
    await request(installation, ORDER)
    assert delete(installation) == 0
    await installation.work()
    assert attached(installation) == [INVOICE.octets]
    assert delete(installation) == 1


async def test_a_dead_message_keeps_its_attachment_for_a_replay(installation: Installation) -> None:
    installation.launch(RECEIPT)
    dead = await request(installation, ORDER)
    queue = await installation.context.queue(SEND_QUEUE)
    await queue.cancel([str(dead.touch_id)], "a test")
    with write(installation.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'dead', cause = 'a test'"))
    sent = await request(installation, replace(ORDER, key="order-2", files=[OTHER]))
    await installation.work()
    assert delete(installation) == 1, "the other one was sent"
    assert await replay(installation.context, queue, [str(dead.touch_id)]) == 1
    await installation.work()
    assert attached(installation) == [OTHER.octets, INVOICE.octets]
    assert sorted(installation.touches()) == [(dead.touch_id, "accepted"), (sent.touch_id, "accepted")]


async def test_a_file_that_was_requested_again_stays(installation: Installation) -> None:
    installation.launch(RECEIPT)
    await request(installation, ORDER)
    await installation.work()
    between = installation.context.clock.now()
    await request(installation, replace(ORDER, key="order-2"))
    assert delete_old_attachments(installation.engine, between) == 0
    await installation.work()
    assert attached(installation) == [INVOICE.octets] * 2
    assert delete(installation) == 1


@pytest.mark.parametrize("campaign_first", [True, False])
async def test_a_file_of_a_step_stays(installation: Installation, campaign_first: bool) -> None:
    (installation.folder / "invoice.pdf").write_bytes(INVOICE.octets)
    terms = RECEIPT.replace("name: receipt", "name: terms").replace(
        "text: receipt.txt}", "text: receipt.txt, attachments: [invoice.pdf]}"
    )
    if campaign_first:
        installation.apply(terms)
    installation.launch(RECEIPT)
    await request(installation, ORDER)
    await installation.work()
    if not campaign_first:
        installation.apply(terms)
    assert delete(installation) == 0
    assert installation.count("stored_file") == 1


async def test_every_attachment_goes_in_steps(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroad.store.attachment_retention.STEP", 20)
    installation.launch(RECEIPT)
    for number in range(45):
        file = replace(INVOICE, octets=f"PDF {number % 30}".encode())
        await request(installation, replace(ORDER, key=f"order-{number}", files=[file]))
    await installation.work()
    assert installation.count("stored_file") == 30
    assert delete(installation, steps=2) == 0, "requests are changed first"
    found = [delete(installation, steps=8) for _ in range(4)]
    assert (sum(found), found[-1]) == (30, 0)


def test_messages_that_may_still_be_sent_are_known() -> None:
    final = {TouchState.ACCEPTED, TouchState.BOUNCED, TouchState.SUPPRESSED, TouchState.CANCELLED, TouchState.SKIPPED}
    assert sendable_states() == set(TouchState) - final
