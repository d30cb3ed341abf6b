"""A queue that lost its last writes returns sent jobs again. The ledger decides whether they are sent.

Each test is a sequence that a power failure under ``appendfsync everysec`` can cause.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from postroad.app.context import AppContext
from postroad.campaign.status import summary
from postroad.delivery.admit import Admission
from postroad.delivery.job import SEND_QUEUE
from postroad.delivery.recorder import Recorder
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.delivery.submit import SubmitOptions, enqueue_by_id, load_submit_plan
from postroad.embedded import server_binary
from postroad.errors import UnavailableError
from postroad.queue import ClaimedJob, Defer, Done, Queue, Release, Retry, Uncertain, Verdict
from postroad.queue.redis.client import connect
from postroad.settings import BounceSettings
from postroad.store.ledger import TouchState
from tests.chaos.server import Fsync, Server
from tests.end_to_end.site import Site, open_site

LEASE_MS = 60_000


class TouchFixture:
    """One touch with its queue, admission check and recorder."""

    def __init__(self, context: AppContext, queue: Queue, site: Site) -> None:
        self.queue = queue
        self.admission = Admission(context.engine, context.clock)
        self.recorder = Recorder(
            engine=context.engine, queue=queue, clock=context.clock, name="r", bounce=BounceSettings()
        )
        self._context = context
        self._site = site
        self._claims = 0

    async def claim(self, lease_ms: int = LEASE_MS) -> ClaimedJob:
        self._claims += 1
        [job] = (await self.queue.claim("w", want=1, lease_ms=lease_ms, nonce=f"n{self._claims}")).jobs
        return job

    async def reap(self) -> tuple[int, int]:
        reaped = await self.queue.reap()
        return reaped.released, reaped.uncertain

    async def admit(self, job: ClaimedJob) -> Verdict | None:
        return (await self.admission([job])).get(job.id)

    async def settle(self, job: ClaimedJob, verdict: Verdict) -> None:
        assert (await self.queue.settle("w", [(job, verdict)])).stale == []

    async def forget(self) -> None:
        """Reset the queue to its state after the touch was enqueued."""
        client = connect(self._site.redis.url)
        flushall: Callable[[], Awaitable[object]] = client.flushall
        await flushall()
        await client.aclose()
        plan = load_submit_plan(self._context.engine, "trial", SubmitOptions(expire_ms=3_600_000))
        await enqueue_by_id(self._context.engine, self.queue, plan, [1])

    def state(self) -> TouchState:
        [state] = (state for state, n in summary(self._context.engine, "trial").counts.items() if n)
        return state


@pytest.fixture
async def fixture(site: Site) -> AsyncIterator[TouchFixture]:
    async with _fixture(site) as opened:
        yield opened


@asynccontextmanager
async def _fixture(site: Site) -> AsyncIterator[TouchFixture]:
    await site.launch(1)
    async with site.context() as context:
        yield TouchFixture(context, await context.queue(SEND_QUEUE), site)


def note(state: TouchState) -> bytes:
    return encode_result(DeliveryResult(state=state))


async def test_a_lost_claim_is_not_sent_again_by_the_next(fixture: TouchFixture) -> None:
    assert await fixture.admit(await fixture.claim()) is None
    await fixture.forget()
    assert isinstance(await fixture.admit(await fixture.claim()), Uncertain)


async def test_a_lost_claim_is_not_sent_again_after_an_unadmitted_one(fixture: TouchFixture) -> None:
    assert await fixture.admit(await fixture.claim()) is None
    await fixture.forget()
    # This claim ends because the database is unavailable or the worker dies. It is no evidence for the lost claim.
    await fixture.settle(await fixture.claim(), Release())
    assert isinstance(await fixture.admit(await fixture.claim()), Uncertain)


@pytest.mark.parametrize(
    "verdict", [Release(), Defer(at_ms=1, cause="campaign paused"), Retry(cause="handler", at_ms=1)]
)
async def test_an_event_of_another_claim_does_not_free_a_lost_claim(fixture: TouchFixture, verdict: Verdict) -> None:
    assert await fixture.admit(await fixture.claim()) is None
    await fixture.forget()
    await fixture.settle(await fixture.claim(), verdict)
    await fixture.recorder.drain()
    assert fixture.state() is TouchState.SENDING
    assert isinstance(await fixture.admit(await fixture.claim()), Uncertain)


async def test_a_claim_that_ended_is_followed_by_another_at_once(fixture: TouchFixture) -> None:
    job = await fixture.claim()
    assert await fixture.admit(job) is None
    await fixture.settle(job, Release())
    # Two claims end before admission, and the recorder is late: still no touch is in doubt.
    await fixture.settle(await fixture.claim(), Release())
    await fixture.settle(await fixture.claim(), Release())
    assert await fixture.admit(await fixture.claim()) is None


async def test_ended_claims_are_recorded_one_by_one(fixture: TouchFixture) -> None:
    job = await fixture.claim()
    assert await fixture.admit(job) is None
    await fixture.settle(job, Release())
    await fixture.settle(await fixture.claim(), Release())
    await fixture.recorder.drain()
    assert fixture.state() is TouchState.QUEUED


async def test_a_held_job_with_a_late_deferral_is_retried(fixture: TouchFixture) -> None:
    job = await fixture.claim()
    assert await fixture.admit(job) is None
    await fixture.settle(job, Uncertain(cause="lease"))
    await fixture.recorder.drain()
    assert fixture.state() is TouchState.UNKNOWN
    # Its worker returns late: the receiver had replied 450.
    await fixture.settle(job, Defer(at_ms=1, cause="greylisted", note=note(TouchState.DEFERRED)))
    again = await fixture.claim()
    assert await fixture.admit(again) is None, "that the claim ended is known, though it is not recorded yet"
    await fixture.settle(again, Done(note=note(TouchState.ACCEPTED)))
    await fixture.recorder.drain()
    assert fixture.state() is TouchState.ACCEPTED


async def test_a_late_deferral_of_a_held_job_is_recorded(fixture: TouchFixture) -> None:
    job = await fixture.claim()
    assert await fixture.admit(job) is None
    await fixture.settle(job, Uncertain(cause="lease"))
    await fixture.recorder.drain()
    await fixture.settle(job, Defer(at_ms=1, cause="greylisted", note=note(TouchState.DEFERRED)))
    await fixture.recorder.drain()
    assert fixture.state() is TouchState.DEFERRED


async def test_a_job_is_not_sent_again_after_its_mark_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker claims, the server syncs, the worker marks and sends. Then the power fails for both."""
    with TemporaryDirectory(prefix="pr") as folder:
        async with (
            Server.running(server_binary(), Path(folder), Fsync.EVERYSEC) as server,
            open_site(tmp_path, server, monkeypatch.setenv) as site,
            _fixture(site) as fixture,
        ):
            job = await fixture.claim(lease_ms=3_000)
            assert await fixture.admit(job) is None
            await server.synced()
            assert await fixture.queue.mark([job]) == [True]
            server.cut_power()
            server.start()

            async def run_out() -> bool:
                with suppress(UnavailableError):
                    return (await fixture.queue.stats()).in_flight == 0 or sum(await fixture.reap()) > 0
                return False

            await site.until(run_out)
            await fixture.recorder.drain()
            assert fixture.state() is TouchState.UNKNOWN
            assert (await fixture.queue.stats()).queued == 0
