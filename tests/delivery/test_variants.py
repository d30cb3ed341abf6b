"""Jobs carry the variants of their touches, and jobs of versions without variants are still sent."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.clock import SystemClock
from postroad.delivery.compiled_steps import CompiledSteps
from postroad.delivery.job import SendJob, decode_job, encode_job, job_id
from postroad.delivery.submit import SubmitOptions, submit_due
from postroad.errors import ConfigError
from postroad.mail.token import TokenSigner
from postroad.operations.rebuild import rebuild
from postroad.queue import ClaimedJob, Queue
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.touches.sending import requeue_dead
from postroad.store.types import UtcDateTime
from tests.delivery.queue_of_touches import claim, recorder
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

OPTIONS = SubmitOptions(expire_ms=10 * 365 * 86_400_000)
VARIANTS = [
    {"name": "a", "share": 50, "subject": "A {{ name }}"},
    {"name": "b", "share": 50, "text": "B {{ city }} {{ unsubscribe_url }} {{ postal_address }}"},
]


def touches_of(engine: sa.Engine) -> dict[int, str]:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring", steps=[{"variants": VARIANTS}])
        found = {}
        for number, variant in enumerate(["a", "b", "a"]):
            recipient = add_recipient(connection, f"p{number}@example.com")
            touch = add_touch(connection, campaign, step, TouchState.PLANNED, recipient_id=recipient)
            values = {"variant": variant, "id": touch}
            connection.execute(sa.text("UPDATE touch SET variant = :variant WHERE id = :id"), values)
            found[touch] = variant
    return found


def variants(jobs: list[ClaimedJob]) -> dict[int, str]:
    return {int(job.id): decode_job(job.payload).variant for job in jobs}


async def submit(engine: sa.Engine, queue: Queue) -> None:
    await submit_due(engine, queue, "spring", OPTIONS, now=NOW, cursor=0, limit=100)


async def test_a_submission_carries_the_variant(engine: sa.Engine, queue: Queue) -> None:
    touches = touches_of(engine)
    await submit(engine, queue)
    assert variants(await claim(queue)) == touches


async def test_a_rebuilt_and_a_replayed_job_have_the_same_variant(engine: sa.Engine, queue: Queue) -> None:
    touches = touches_of(engine)
    with write(engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'queued' WHERE variant = 'b'"))
        connection.execute(sa.text("UPDATE touch SET state = 'dead', settled_at = due_at WHERE variant = 'a'"))
        requeue_dead(connection, [touch for touch, variant in touches.items() if variant == "a"])
    await rebuild(engine, queue, recorder(engine, queue), OPTIONS, now=NOW)
    assert variants(await claim(queue)) == touches


async def test_a_touch_that_waited_is_due_when_it_may_leave(engine: sa.Engine, queue: Queue) -> None:
    touches = touches_of(engine)
    with write(engine) as connection:
        late = sa.text("UPDATE touch SET waited_until = :at WHERE variant = 'b'")
        late = late.bindparams(sa.bindparam("at", type_=UtcDateTime()))
        connection.execute(late, {"at": datetime(2030, 1, 1, tzinfo=UTC)})
    await submit(engine, queue)
    [waited] = [touch for touch, variant in touches.items() if variant == "b"]
    found = await queue.find(job_id(waited))
    assert found.at_ms == 1_893_456_000_000


async def test_messages_are_compiled_by_variant(engine: sa.Engine) -> None:
    with write(engine) as connection:
        _, (step,) = add_campaign(connection, name="spring", steps=[{"variants": VARIANTS}])
    steps = CompiledSteps(
        engine=engine,
        signer=TokenSigner(SecretStr("a key that is only used in tests")),
        public_url="https://mail.example.com",
        clock=SystemClock(),
    )
    contents = {}
    for variant in ("a", "b", ""):
        message = (await steps.get(step, 0, variant=variant)).message
        fields = {"name": "Ann", "city": "Ulm"}
        contents[variant] = message.merge(1, "a@example.com", fields, NOW).signed().content.decode()
    assert ["Subject: A Ann" in content for content in contents.values()] == [True, False, False]
    assert ["B Ulm" in content for content in contents.values()] == [False, True, False]
    with pytest.raises(ConfigError, match="variant of step"):
        await steps.get(step, 0, variant="c")


def test_a_job_of_a_version_without_variants_is_read() -> None:
    old = msgspec.msgpack.encode(
        {"type": "send.v1", "touch_id": 1, "step_id": 2, "address": "a@b.example", "fields": {}}
    )
    assert decode_job(old) == SendJob(touch_id=1, step_id=2, address="a@b.example", fields={})
    assert b"variant" not in encode_job(decode_job(old))
