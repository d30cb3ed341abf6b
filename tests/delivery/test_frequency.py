"""Frequency caps at admission: over all campaigns, a message waits for its turn or is skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from postroad.campaign.plan import advance
from postroad.campaign.status import finish_if_done
from postroad.delivery.admit import Admission
from postroad.delivery.frequency import WIRE_DELAY_MS
from postroad.delivery.job import SendJob, encode_job, job_id
from postroad.delivery.recorder import Recorder
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.queue import ClaimedJob, Done, Job, Queue
from postroad.queue.redis.client import connect
from postroad.settings import BounceSettings
from postroad.settings.types import RateSetting
from postroad.store.campaign import Campaign
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from tests.delivery.queue_of_touches import lane, noted, state_of
from tests.kit.clock import FakeClock
from tests.store.rows import add_campaign, add_recipient, add_touch, touch_row

MONDAY = datetime(2026, 5, 4, 7, 30, tzinfo=UTC)
DAY_MS = 86_400_000
CAPS = {"normal": RateSetting.parse("1/7d")}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(int(MONDAY.timestamp() * 1000))


@pytest.fixture
async def queue(redis_url: str, clock: FakeClock) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, "frequency", clock=clock) as queue:
        yield queue
        assert await queue.audit() == []
    client = connect(redis_url)
    for key in await client.keys("pr:{frequency}:*"):
        await client.delete(key)
    await client.aclose()


class Mailing:
    """Campaigns to one recipient, with a worker that claims, asks the admission, and settles."""

    def __init__(self, engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
        self.engine = engine
        self.queue = queue
        self.clock = clock
        self.claims = 0
        with write(engine) as connection:
            self.recipient = add_recipient(connection, "ada@example.com")

    async def add(
        self, name: str, *, frequency: str | None = None, skip: bool = False, expires_ms: int = 0, emails: int = 1
    ) -> int:
        """Add a campaign with a touch in the queue. Return the touch."""
        with write(self.engine) as connection:
            steps: list[dict[str, Any]] = [{} for _ in range(emails)]
            campaign, ids = add_campaign(connection, name=name, steps=steps, launched_at=MONDAY)
            values = {"frequency": frequency, "frequency_skip": skip}
            connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign).values(**values))
            touch = add_touch(
                connection, campaign, ids[0], TouchState.QUEUED, recipient_id=self.recipient, due_at=MONDAY
            )
        message = SendJob(touch_id=touch, step_id=ids[0], address="ada@example.com", fields={})
        job = Job(id=job_id(touch), payload=encode_job(message), expires_ms=expires_ms)
        await self.queue.enqueue(lane(name), [job])
        return touch

    async def run(self, *, accept: bool = True) -> dict[int, str]:
        """Claim and admit what is due. Return the cause of each rejection, or `accepted`."""
        self.claims += 1
        batch = (await self.queue.claim("w", want=100, lease_ms=10**9, nonce=str(self.claims))).jobs
        verdicts = dict(await Admission(self.engine, self.clock, frequency=CAPS)(batch))
        seen = {int(job.id): getattr(verdicts.get(job.id), "cause", "accepted") for job in batch}
        if accept:
            note = encode_result(DeliveryResult(state=TouchState.ACCEPTED, cause="accepted"))
            verdicts |= {job.id: Done(note=note) for job in batch if job.id not in verdicts}
        by_id: dict[str, ClaimedJob] = {job.id: job for job in batch}
        await self.queue.settle("w", [(by_id[id_], verdict) for id_, verdict in verdicts.items()])
        await Recorder(
            engine=self.engine, queue=self.queue, clock=self.clock, name="r", bounce=BounceSettings()
        ).drain()
        return seen

    def due_at(self, touch: int) -> datetime:
        with read(self.engine) as connection:
            return touch_row(connection, touch).due_at


@pytest.fixture
def mailing(engine: sa.Engine, queue: Queue, clock: FakeClock) -> Mailing:
    return Mailing(engine, queue, clock)


OVER = "over the frequency cap normal (1/7d)"


async def test_the_second_campaign_waits_until_the_first_message_leaves_the_span(mailing: Mailing) -> None:
    first = await mailing.add("spring")
    assert await mailing.run() == {first: "accepted"}
    mailing.clock.advance(2 * DAY_MS)
    second = await mailing.add("summer")
    assert await mailing.run() == {second: OVER}
    assert (await mailing.queue.find(job_id(second))).at_ms == int(MONDAY.timestamp() * 1000) + 7 * DAY_MS
    assert state_of(mailing.engine, second) is TouchState.QUEUED
    assert noted(mailing.engine, second) == []  # It was no attempt.
    mailing.clock.advance(5 * DAY_MS - 1)
    assert await mailing.run() == {}
    mailing.clock.advance(1)
    assert await mailing.run() == {second: "accepted"}


async def test_messages_to_one_recipient_in_one_batch_obey_the_cap(mailing: Mailing) -> None:
    touches = [await mailing.add(name) for name in ("spring", "summer", "autumn")]
    assert sorted((await mailing.run(accept=False)).values()) == ["accepted", OVER, OVER]
    assert sorted(state_of(mailing.engine, touch) for touch in touches) == ["queued", "queued", "sending"]
    mailing.clock.advance(WIRE_DELAY_MS)
    assert sorted((await mailing.run()).values()) == [OVER, OVER], "the first is still on the wire"


async def test_a_campaign_that_ignores_the_cap_is_neither_held_nor_counted(mailing: Mailing) -> None:
    first = await mailing.add("receipt", frequency="ignore")
    assert await mailing.run() == {first: "accepted"}
    second = await mailing.add("spring")
    assert await mailing.run() == {second: "accepted"}
    third = await mailing.add("notice", frequency="ignore")
    assert await mailing.run() == {third: "accepted"}


async def test_a_message_that_would_expire_in_the_queue_waits_in_the_ledger(mailing: Mailing) -> None:
    first = await mailing.add("spring")
    assert await mailing.run() == {first: "accepted"}
    expires_ms = mailing.clock.now_ms() + 3 * DAY_MS
    second = await mailing.add("summer", expires_ms=expires_ms)
    assert await mailing.run() == {second: OVER}
    assert state_of(mailing.engine, second) is TouchState.PLANNED
    assert mailing.due_at(second) == MONDAY + timedelta(days=7)
    assert noted(mailing.engine, second) == []
    # The queue has forgotten the job, so the touch can be submitted again under the same id.
    assert await mailing.queue.states([job_id(second)]) == [None]


async def test_a_skipped_message_is_followed_by_the_next_email(mailing: Mailing) -> None:
    first = await mailing.add("spring")
    assert await mailing.run() == {first: "accepted"}
    skipped = await mailing.add("summer", skip=True, emails=2)
    assert await mailing.run() == {skipped: OVER}
    assert state_of(mailing.engine, skipped) is TouchState.SKIPPED
    assert noted(mailing.engine, skipped) == [("skipped", OVER, None)]
    now = mailing.clock.now()
    assert not finish_if_done(mailing.engine, "summer", now)
    assert advance(mailing.engine, "summer", now) == 1
    assert advance(mailing.engine, "summer", now) == 0


async def test_a_class_that_the_settings_lack_holds_its_mail(mailing: Mailing) -> None:
    touch = await mailing.add("spring", frequency="gone")
    assert await mailing.run() == {touch: "no frequency class gone"}
    assert state_of(mailing.engine, touch) is TouchState.QUEUED
