"""A campaign with one message to Ada, in the ledger and on the queue, and a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.delivery.job import job_id, lane_of
from postroad.explain.story import MessageStory, Story, tell_story
from postroad.explain.touch import TouchExplanation, explain_touch
from postroad.gates.name import GateName, Receiver
from postroad.queue import ClaimedJob, Job, Queue
from postroad.store.campaign import Campaign
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.types import UtcDateTime
from postroad.touch_search import find_touches
from postroad.warmup.identity import identities_by_sender
from tests.delivery.queue_of_touches import recorder
from tests.kit.clock import FakeClock
from tests.store.rows import add_campaign, add_recipient, add_touch

MORNING = datetime(2026, 5, 4, 6, tzinfo=UTC)  # Monday, 08:00 in Berlin
NEWS, ADA = "news@example.com", "ada@gmail.com"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SETTINGS = f"""
[calendar]
days_off = ["2026-05-04"]
[frequency]
normal = "1/7d"
[routes.relay]
host = "127.0.0.1"
[senders.news]
address = "{NEWS}"
postal_address = "1 High Street, Springfield"
route = "relay"
[senders.news.warmup]
zone = "Europe/Berlin"
"""
GOOGLE = str(GateName.warmup("google", NEWS))


class Scene:
    """A campaign with one message to Ada, in the ledger and on the queue, and a clock."""

    def __init__(self, context: AppContext, queue: Queue, clock: FakeClock) -> None:
        self.context, self.queue, self.clock = context, queue, clock
        with write(context.engine) as connection:
            self.campaign_id, (self.step,) = add_campaign(connection, name="spring", time_zone="Europe/Berlin")
            self.recipient = add_recipient(connection, ADA)
            self.touch = add_touch(
                connection,
                self.campaign_id,
                self.step,
                TouchState.QUEUED,
                recipient_id=self.recipient,
                due_at=MORNING,
            )
        self._claims = count()

    async def enqueue(self, *, due: datetime = MORNING, warm: bool = False) -> None:
        lane = lane_of(
            sender=NEWS,
            receiver=Receiver("google"),
            campaign="spring",
            route="relay",
            job_class="bulk",
            warmup=identities_by_sender(self.context.settings)[NEWS] if warm else (),
        )
        await self.queue.enqueue(lane, [Job(id=job_id(self.touch), payload=b"", due_ms=ms(due))])

    async def claim(self, *, admitted: bool = True) -> ClaimedJob:
        [job] = (await self.queue.claim("w", want=1, lease_ms=60_000, nonce=f"n{next(self._claims)}")).jobs
        if admitted:
            self.state(TouchState.SENDING)
            with write(self.context.engine) as connection:
                values = {"claim": job.token, "id": self.touch}
                connection.execute(sa.text("UPDATE touch SET claim = :claim WHERE id = :id"), values)
        return job

    async def record(self) -> None:
        await recorder(self.context.engine, self.queue).drain()

    def state(self, state: TouchState, *, reply: str | None = None) -> None:
        settled = MORNING if state.ended else None
        values = {"state": state.value, "reply": reply, "id": self.touch}
        statement = sa.text("UPDATE touch SET state = :state, reply = :reply, settled_at = :settled WHERE id = :id")
        with write(self.context.engine) as connection:
            connection.execute(
                statement.bindparams(sa.bindparam("settled", type_=UtcDateTime())), {**values, "settled": settled}
            )

    def set_campaign(self, **values: object) -> None:
        with write(self.context.engine) as connection:
            connection.execute(sa.update(Campaign).values(**values))

    async def explain(self) -> TouchExplanation:
        [touch] = await find_touches(self.context, str(self.touch))
        return await explain_touch(self.context, touch)

    async def story(self) -> Story:
        return await tell_story(self.context, ADA)

    async def message(self) -> MessageStory:
        [message] = [message for message in (await self.story()).messages if message.touch == self.touch]
        return message


def ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
