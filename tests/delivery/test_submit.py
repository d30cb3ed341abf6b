"""Touches are handed over in transactions that end only when the queue has them."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.delivery.job import decode_job
from postroad.delivery.provider_lookup import Providers
from postroad.delivery.recorder import Recorder
from postroad.delivery.submit import OWN_LANE_THRESHOLD, SubmitOptions, SubmitResult, submit_due
from postroad.dns.providers import site_of
from postroad.dns.resolver import Resolver
from postroad.errors import StateError, UnavailableError
from postroad.operations.campaigns import cancel, pause, resume
from postroad.operations.rebuild import missing_jobs, rebuild
from postroad.queue import Done, Enqueued, Job, JobState, Lane, Queue
from postroad.settings import BounceSettings
from postroad.shaping.config import Shaping, read_shaping
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.touch_count import counts_by_step
from tests.dns.nameserver import Nameserver, Trouble
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

HOUR_MS = 3_600_000
EXPIRE_MS = 1000 * HOUR_MS * 24 * 365


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, f"test-{uuid.uuid4().hex}") as opened:
        yield opened


class Broken:
    """A queue whose server goes away after so many lanes were enqueued."""

    def __init__(self, queue: Queue, calls: int) -> None:
        self._queue = queue
        self._calls = calls

    async def enqueue(self, lane: Lane, jobs: Sequence[Job]) -> Enqueued:
        if self._calls == 0:
            raise UnavailableError("the server is away")
        self._calls -= 1
        return await self._queue.enqueue(lane, jobs)


def campaign_of(engine: sa.Engine, touches: int, **due: timedelta) -> int:
    """Make a campaign named trial with planned touches, due now, or after what is given."""
    with write(engine) as connection:
        campaign_id, steps = add_campaign(connection, name="trial")
        for _ in range(touches):
            due_at = NOW + due.get("after", timedelta())
            add_touch(connection, campaign_id, steps[0], TouchState.PLANNED, due_at=due_at)
    return campaign_id


async def lanes_of(
    engine: sa.Engine, queue: Queue, providers: Providers | None = None, shaping: Shaping | None = None
) -> dict[str, set[str]]:
    """Submit everything; return the domains that are limited alike, by receiver."""
    await submit(engine, queue, limit=10_000, providers=providers, shaping=shaping)
    found: dict[str, set[str]] = defaultdict(set)
    for job in (await queue.claim("w", want=10_000, lease_ms=60_000, nonce="n")).jobs:
        message = decode_job(job.payload)
        found[str(message.receiver)].add(message.address.partition("@")[2])
    return dict(found)


def touches_at(engine: sa.Engine, domains: dict[str, int]) -> None:
    """Make a campaign named trial with so many touches due at each domain."""
    with write(engine) as connection:
        campaign_id, steps = add_campaign(connection, name="trial")
        for domain, count in domains.items():
            for number in range(count):
                recipient_id = add_recipient(connection, f"a{number}@{domain}")
                add_touch(connection, campaign_id, steps[0], TouchState.PLANNED, due_at=NOW, recipient_id=recipient_id)


async def test_domains_are_limited_by_who_runs_their_mail_hosts(engine: sa.Engine, queue: Queue) -> None:
    zone = {
        "school.net": {"MX": ["1 aspmx.l.google.com."]},
        "shop.net": {"MX": ["10 mx1.hoster.net.", "10 mx2.hoster.net."]},
        "club.net": {"MX": ["10 mx1.hoster.net.", "10 mx2.hoster.net."]},
        "rare.net": {"MX": ["10 mx.rare.net."]},
    }
    busy = OWN_LANE_THRESHOLD // 2
    touches_at(
        engine, {"school.net": 1, "gmail.com": 2, "shop.net": busy, "club.net": busy, "rare.net": 3, "gone.net": 1}
    )
    async with Nameserver(zone) as server, Resolver(server.settings(), SystemClock()) as resolver:
        lanes = await lanes_of(engine, queue, Providers(resolver, engine, SystemClock()))
    site = site_of("shop.net", ("mx1.hoster.net", "mx2.hoster.net"))
    assert lanes == {
        "google": {"school.net", "gmail.com"},
        site: {"shop.net", "club.net"},  # the same mail hosts, and enough of it
        "other": {"rare.net", "gone.net"},
    }


async def test_sites_and_domains_with_a_pace_of_their_own_have_lanes(
    engine: sa.Engine, queue: Queue, tmp_path: Path
) -> None:
    zone = {
        "school.net": {"MX": ["1 aspmx.l.google.com."]},
        "office.net": {"MX": ["1 aspmx.l.google.com."]},
        "shop.net": {"MX": ["10 mx.hoster.net."]},
        "club.net": {"MX": ["10 mx.hoster.net."]},
        "rare.net": {"MX": ["10 mx.rare.net."]},
    }
    own = tmp_path / "shaping.toml"
    own.write_text(
        """
        [domain."office.net"]
        rate = "1/1s"
        [domain."rare.net"]
        tls = "required"
        [domain."club.net"]
        connections = 1
        [site."mx.hoster.net"]
        connections = 2
        """
    )
    touches_at(engine, {"school.net": 1, "office.net": 1, "gmail.com": 1, "shop.net": 30, "club.net": 1, "rare.net": 1})
    async with Nameserver(zone) as server, Resolver(server.settings(), SystemClock()) as resolver:
        lanes = await lanes_of(engine, queue, Providers(resolver, engine, SystemClock()), read_shaping(own))
    assert lanes == {
        "google": {"school.net", "gmail.com"},
        "google/domain.office.net": {"office.net"},
        "other/site.mx.hoster.net": {"shop.net"},
        "other/site.mx.hoster.net/domain.club.net": {"club.net"},
        "other": {"rare.net"},
    }
    gates = {state.gate.name for state in await queue.gates()}
    # What is at Google counts there as well, for all senders together.
    assert {"provider:google", "provider:google/domain.office.net:news@example.com"} <= gates


async def test_dns_that_is_away_holds_nothing_up(engine: sa.Engine, queue: Queue) -> None:
    touches_at(engine, {"school.net": 30, "gmail.com": 2})
    async with (
        Nameserver({}, troubles={"school.net": Trouble.SILENT}) as server,
        Resolver(server.settings(timeout_ms=60_000), SystemClock()) as resolver,
    ):
        lanes = await lanes_of(engine, queue, Providers(resolver, engine, SystemClock(), deadline_s=0.2))
    assert lanes == {"google": {"gmail.com"}, "school.net": {"school.net"}}


def counts(engine: sa.Engine, campaign_id: int) -> dict[TouchState, int]:
    with read(engine) as connection:
        return next(iter(counts_by_step(connection, campaign_id).values()))


async def submit(
    engine: sa.Engine,
    queue: Queue,
    *,
    cursor: int = 0,
    limit: int = 1000,
    providers: Providers | None = None,
    shaping: Shaping | None = None,
) -> SubmitResult:
    return await submit_due(
        engine,
        queue,
        "trial",
        SubmitOptions(expire_ms=EXPIRE_MS, horizon_ms=HOUR_MS, shaping=shaping, providers=providers),
        now=NOW,
        cursor=cursor,
        limit=limit,
    )


async def test_slices_hand_over_everything_once(engine: sa.Engine, queue: Queue) -> None:
    campaign_id = campaign_of(engine, 25)
    first = await submit(engine, queue, limit=10)
    assert (first.submitted, first.done) == (10, False)
    second = await submit(engine, queue, cursor=first.cursor)
    assert (second.submitted, second.done) == (15, True)
    assert counts(engine, campaign_id) == {TouchState.QUEUED: 25}
    assert (await queue.stats()).queued == 25
    assert (await submit(engine, queue)).submitted == 0


async def test_touches_due_after_the_horizon_stay_planned(engine: sa.Engine, queue: Queue) -> None:
    campaign_id = campaign_of(engine, 3, after=timedelta(hours=2))
    assert (await submit(engine, queue)).submitted == 0
    assert counts(engine, campaign_id) == {TouchState.PLANNED: 3}


async def test_queue_that_goes_away_leaves_the_batch_planned_and_again_repeats_nothing(
    engine: sa.Engine, queue: Queue
) -> None:
    campaign_id = campaign_of(engine, 20)
    with pytest.raises(UnavailableError):
        await submit(engine, Broken(queue, 0))  # type: ignore[arg-type]
    assert counts(engine, campaign_id) == {TouchState.PLANNED: 20}
    await submit(engine, queue)
    assert (await queue.stats()).counters["enqueued"] == 20


async def test_batch_that_the_queue_has_and_the_ledger_does_not_is_not_enqueued_twice(
    engine: sa.Engine, queue: Queue
) -> None:
    campaign_id = campaign_of(engine, 5)
    await submit(engine, queue)
    with write(engine) as connection:  # As if the transaction was lost after the queue's reply.
        connection.execute(sa.text("UPDATE touch SET state = 'planned'"))
    # Some are even delivered by then, and their outcome is not recorded.
    batch = await queue.claim("w", want=2, lease_ms=60_000, nonce="n")
    await queue.settle("w", [(job, Done()) for job in batch.jobs])
    await submit(engine, queue)
    assert (await queue.stats()).counters["enqueued"] == 5
    assert counts(engine, campaign_id) == {TouchState.QUEUED: 5}


async def test_campaign_that_does_not_run_hands_nothing_over(engine: sa.Engine, queue: Queue) -> None:
    campaign_of(engine, 5)
    await pause(engine, queue, "trial", by="a test", now=NOW)
    assert (await submit(engine, queue)).submitted == 0
    with pytest.raises(StateError):
        await pause(engine, queue, "trial", by="a test", now=NOW)
    await resume(engine, queue, "trial", by="a test", now=NOW)
    assert (await submit(engine, queue)).submitted == 5


async def test_cancel_takes_what_is_queued_off_the_queue(engine: sa.Engine, queue: Queue) -> None:
    campaign_id = campaign_of(engine, 12)
    await submit(engine, queue, limit=8)
    assert await cancel(engine, queue, "trial", NOW) == 8
    assert counts(engine, campaign_id) == {TouchState.CANCELLED: 12}
    assert not (await queue.claim("w", want=100, lease_ms=60_000, nonce="n")).jobs
    with pytest.raises(StateError):
        await resume(engine, queue, "trial", by="a test", now=NOW)


async def test_rebuild_enqueues_what_waits_and_holds_what_was_on_the_wire(engine: sa.Engine, queue: Queue) -> None:
    campaign_id = campaign_of(engine, 6)
    await submit(engine, queue, limit=4)
    assert await missing_jobs(engine, queue) == 0
    with write(engine) as connection:
        connection.execute(
            sa.text("UPDATE touch SET state = 'sending', claim = 1 WHERE id = (SELECT min(id) FROM touch)")
        )
    await queue.cancel([str(i) for i in ids(engine)], "as if the server had been emptied")
    recorder = Recorder(engine=engine, queue=queue, clock=SystemClock(), name="test", bounce=BounceSettings())
    events = await queue.read_events("recorder", "test", count=100, block_ms=0)
    await queue.acknowledge("recorder", events, forget=[event.id for event in events])
    assert await missing_jobs(engine, queue) == 4
    rebuilt = await rebuild(engine, queue, recorder, SubmitOptions(expire_ms=EXPIRE_MS), now=NOW)
    assert (rebuilt.looked_at, rebuilt.enqueued, rebuilt.unknown) == (4, 3, 1)
    assert await missing_jobs(engine, queue) == 0
    assert counts(engine, campaign_id) == {TouchState.PLANNED: 2, TouchState.QUEUED: 3, TouchState.UNKNOWN: 1}
    states = await queue.states([str(i) for i in ids(engine)])
    assert states.count(JobState.QUEUED) == 3
    again = await rebuild(engine, queue, recorder, SubmitOptions(expire_ms=EXPIRE_MS), now=NOW)
    assert (again.looked_at, again.enqueued, again.unknown) == (3, 0, 0)


def ids(engine: sa.Engine) -> list[int]:
    with read(engine) as connection:
        return list(connection.execute(sa.text("SELECT id FROM touch ORDER BY id")).scalars())
