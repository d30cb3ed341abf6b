"""Doctor reports paused and held senders with reason and remedy."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.delivery.job import SEND_QUEUE
from postroad.gates.name import GateName, Receiver
from postroad.store.dns_report import SenderHold, save_hold
from postroad.store.engine import write
from tests.doctor.conftest import Change, Doctor

SENDER = "ada@example.com"


def hold(engine: sa.Engine) -> None:
    now = datetime.now(UTC)
    with write(engine) as connection:
        save_hold(connection, SenderHold(sender=SENDER, reason="SPF fails", failing_since=now, held_at=now))


def test_senders_that_may_send_are_ok(doctor: Doctor) -> None:
    assert doctor()["senders"]["health"] == "ok"


def test_a_sender_paused_without_end_fails(doctor: Doctor, change: Change) -> None:
    async def pause(context: AppContext) -> None:
        await (await context.queue(SEND_QUEUE)).pause_gate(str(GateName.sender(SENDER)), None)

    change(pause)
    check = doctor()[f"sender {SENDER}"]
    assert check["health"] == "fail"
    assert "until it is resumed" in check["seen"]
    assert f"postroad queue gate resume sender:{SENDER}" in check["remedy"]


def test_a_pause_with_an_end_is_a_warning(doctor: Doctor, change: Change) -> None:
    async def pause(context: AppContext) -> None:
        queue = await context.queue(SEND_QUEUE)
        await queue.pause_gate(
            str(GateName.at_receiver(SENDER, Receiver("google"))), context.clock.now_ms() + 3_600_000
        )
        await queue.pause_gate("provider:yahoo", context.clock.now_ms() - 1)

    change(pause)
    checks = doctor()
    assert checks[f"gate provider:google:{SENDER}"]["health"] == "warn"
    assert "gate provider:yahoo" not in checks


def test_a_held_sender_fails_even_if_the_queue_lost_its_gate(doctor: Doctor, change: Change) -> None:
    async def hold_back(context: AppContext) -> None:
        await asyncio.to_thread(hold, context.engine)

    change(hold_back)
    check = doctor()[f"sender {SENDER}"]
    assert check["health"] == "fail"
    assert "SPF fails" in check["seen"]


def test_a_paused_queue_fails_even_without_the_database(doctor: Doctor, change: Change) -> None:
    async def pause(context: AppContext) -> None:
        await (await context.queue(SEND_QUEUE)).pause_gate("queue", None)

    change(pause)
    gone = doctor(POSTROAD_DATABASE_URL="postgresql://ada@127.0.0.1:1/none")
    for checks in (doctor(), gone):
        assert checks[f"queue {SEND_QUEUE}"]["health"] == "fail"
