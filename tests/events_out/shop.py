"""The endpoint `shop` of an open installation: its receiver, the feeder and a worker, all of them real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from postroad.app.context import AppContext
from postroad.app.webhooks import feeder, list_endpoints
from postroad.app.worker import open_worker
from postroad.events_out.status import EndpointReport
from postroad.settings import QueueSettings
from postroad.settings.queues import WEBHOOK_QUEUE
from postroad.settings.webhooks_out import WebhookEndpointSettings
from postroad.store.engine import write
from tests.events_out.events import add_events, add_sent_touch
from tests.events_out.receiver import SECRET, Receiver, receiving
from tests.kit.waiting import until

URL_SECRET = "secret-of-the-url"


@dataclass
class Shop:
    """The endpoint and what happens to it."""

    context: AppContext
    receiver: Receiver

    async def add(self, number: int, at: datetime | None = None) -> None:
        """Let events happen, and give them to the endpoint."""
        values = {} if at is None else {"at_ms": int(at.timestamp() * 1000)}
        with write(self.context.engine) as connection:
            add_events(connection, add_sent_touch(connection), number, **values)
        await self.feed()

    async def feed(self) -> None:
        fed = await feeder(self.context)
        while await fed.feed_once():
            pass

    async def report(self) -> EndpointReport:
        [report] = await list_endpoints(self.context)
        return report

    async def until_dead(self, number: int) -> None:
        async def are_dead() -> bool:
            queue = await self.context.queue(WEBHOOK_QUEUE)
            return (await self.report()).dead == (await queue.stats()).dead == number

        await until(are_dead, every_s=0.02)

    async def until_received(self, number: int) -> None:
        await until(lambda: len(self.receiver.requests) >= number, every_s=0.02)

    async def until_settled(self) -> None:
        """Wait until no event waits."""

        async def is_settled() -> bool:
            return (await self.report()).waiting == 0

        await until(is_settled, every_s=0.02)


@asynccontextmanager
async def a_shop(context: AppContext) -> AsyncIterator[Shop]:
    """Deliver the events of the endpoint `shop`, in one attempt each, while the block runs."""
    async with receiving() as receiver:
        endpoint = WebhookEndpointSettings(
            url=f"{receiver.url}?key={URL_SECRET}", secret=SecretStr(SECRET), allow_networks=("127.0.0.0/8",)
        )
        queues = {**context.settings.queues, WEBHOOK_QUEUE: QueueSettings(attempts=1)}
        update = {"webhooks_out": {"shop": endpoint}, "queues": queues}
        context.settings = context.settings.model_copy(update=update)
        queue = await context.queue(WEBHOOK_QUEUE)
        stop, limits = asyncio.Event(), context.settings.queue(WEBHOOK_QUEUE)
        async with open_worker(context, queue, limits, name="w", idle_ms=10) as worker:
            running = asyncio.create_task(worker.run(stop))
            shop = Shop(context, receiver)
            await shop.feed()  # The endpoint gets the events from now on.
            try:
                yield shop
            finally:
                stop.set()
                await running
