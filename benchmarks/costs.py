"""CPU cost of each part of one message. CPU time is valid on a busy machine too.

Each part is run alone, on the jobs, messages, claims and events of a campaign. CPU time is that of this process (user
and system, all threads), and separately that of Redis.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

from benchmarks import campaign_folder
from benchmarks.ours_delivery import apply_campaign, hand_over, import_recipients, settings_of
from benchmarks.server import Server
from benchmarks.sink import Sink
from postroad.app.context import AppContext, open_context
from postroad.campaign.message import StepKey, StepMessage, step_message
from postroad.delivery.admit import Admission
from postroad.delivery.job import SEND_QUEUE, decode_job
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.delivery.routes import Route, open_routes
from postroad.mail.message import Message
from postroad.queue import ClaimedJob, Done, Queue
from postroad.store.engine import read
from postroad.store.ledger import TouchState

WORKER = "costs"
LEASE_MS = 600_000
BATCH = 100
TOGETHER = 20
_T = TypeVar("_T")


class Cost(NamedTuple):
    """Of one message, µs of CPU: in our process, and in Redis. ``what``: what is done for it."""

    part: str
    what: str
    ours_us: float
    redis_us: float


async def costs(server: Server, sink: Sink, messages: int) -> list[Cost]:
    """Return the cost of every part, in the order in which a message meets them; so many messages have it measured."""
    with tempfile.TemporaryDirectory(prefix="postroad-bench-") as name:
        folder = Path(name)
        campaign_folder.build(folder, campaign_folder.FolderOptions(port=sink.port))
        await server.empty()
        async with open_context(settings_of(folder, server.url)) as context:
            meter = _Meter(server, messages)
            return await _walk(context, folder, meter)


class _Meter:
    """Collects what each part takes."""

    def __init__(self, server: Server, messages: int) -> None:
        self._server = server
        self.messages = messages
        self.found: list[Cost] = []

    async def __call__(self, part: str, what: str, work: Awaitable[_T]) -> _T:
        redis_s, ours_s = await self._server.cpu_s(), time.process_time()
        result = await work
        ours_s = time.process_time() - ours_s
        redis_s = await self._server.cpu_s() - redis_s
        self.found.append(Cost(part, what, ours_s / self.messages * 1e6, redis_s / self.messages * 1e6))
        return result


async def _walk(context: AppContext, folder: Path, meter: _Meter) -> list[Cost]:
    messages = meter.messages
    import_recipients(context, folder, messages)
    apply_campaign(context, folder)
    await hand_over(context)
    queue = await context.queue(SEND_QUEUE)
    batches = await meter("claim", "one script call for a batch: every gate is looked at", _claimed(queue, messages))
    what = "one `UPDATE … RETURNING` for a batch, and its commit to the disk"
    await meter("admit", what, _admitted(context, batches))
    jobs = [job for batch in batches for job in batch]
    step = _step(context, decode_job(jobs[0].payload).step_id)
    what = "three templates, quoted-printable, headers, three tokens"
    merged = await meter("merge", what, _merged(context, step, jobs))
    what = "MAIL, RCPT and DATA; then the body and its dot, followed by the next message's commands"
    await meter("SMTP", what, _sent(context, merged))
    await meter("mark", "that the body is about to leave: what makes *unknown* knowable", _marked(queue, batches))
    await meter("settle", "the outcome and its event, in one step", _settled(queue, batches))
    recorder = context.recorder(queue, "costs")
    what = "a row for the event and the state of the touch, in batches; then they are acknowledged"
    await meter("record", what, recorder.drain())
    assert recorder.recorded == messages, f"{recorder.recorded} of {messages} events were recorded"
    return meter.found


async def _claimed(queue: Queue, messages: int) -> list[Sequence[ClaimedJob]]:
    batches: list[Sequence[ClaimedJob]] = []
    while (left := messages - sum(map(len, batches))) > 0:
        batch = await queue.claim(WORKER, want=min(BATCH, left), lease_ms=LEASE_MS, nonce=f"claim-{len(batches)}")
        assert batch.jobs, f"{left} jobs cannot be claimed"
        batches.append(batch.jobs)
    return batches


async def _admitted(context: AppContext, batches: Sequence[Sequence[ClaimedJob]]) -> None:
    admission = Admission(context.engine, context.clock, context.hash_of)
    for batch in batches:
        refused = await admission(batch)
        assert not refused, f"{len(refused)} were not admitted"


def _step(context: AppContext, step_id: int) -> StepMessage:
    with read(context.engine) as connection:
        return step_message(connection, StepKey(step_id), context.signer, context.settings.public_url)


async def _merged(context: AppContext, step: StepMessage, jobs: Sequence[ClaimedJob]) -> list[Message]:
    return [
        step.message.merge(job.touch_id, job.address, job.fields, context.clock.now())
        for job in (decode_job(claimed.payload) for claimed in jobs)
    ]


async def _sent(context: AppContext, messages: Sequence[Message]) -> None:
    ((name, settings),) = context.settings.routes.items()
    waiting = iter(messages)

    async def send(route: Route) -> None:
        for message in waiting:
            reply = await route.send(message.signed(), _unmarked)
            assert reply.positive, str(reply)

    opening = open_routes(
        context.settings.routes,
        shaping=context.shaping,
        resolver=await context.resolver(),
        engine=context.engine,
        clock=context.clock,
        rng=Random(0),
    )
    async with opening as routes, asyncio.TaskGroup() as together:
        for _ in range(settings.connections):
            together.create_task(send(routes[name]))


async def _unmarked() -> None:
    """The mark has a line of its own."""


async def _marked(queue: Queue, batches: Sequence[Sequence[ClaimedJob]]) -> None:
    for batch in batches:
        # As many together as there are connections.
        for start in range(0, len(batch), TOGETHER):
            held = await queue.mark(batch[start : start + TOGETHER])
            assert all(held), "a lease was lost"


async def _settled(queue: Queue, batches: Sequence[Sequence[ClaimedJob]]) -> None:
    note = encode_result(DeliveryResult(state=TouchState.ACCEPTED, reply_code=250, reply="250 2.0.0 Ok"))
    for n, batch in enumerate(batches):
        settled = await queue.settle(WORKER, [(job, Done(note=note)) for job in batch], want=0, nonce=f"settle-{n}")
        assert not settled.stale, f"{len(settled.stale)} leases were lost"
