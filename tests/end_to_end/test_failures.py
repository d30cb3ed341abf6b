"""Processes die in mid-campaign. No recipient is skipped or mailed twice, counted by Message-ID at the provider."""

from __future__ import annotations

import signal

import pytest
from redis.asyncio import Redis

from postroad.sandbox import Fault, RulePhase, Sandbox, SandboxRule
from postroad.store.ledger import TouchState
from tests.end_to_end.site import Site

SLOW = (SandboxRule(phase=RulePhase.DOT, fault=Fault(delay_ms=30)),)
RECIPIENTS = 400

pytestmark = pytest.mark.timeout(120)


def assert_all_accounted_for(site: Site, counts: dict[TouchState, int], recipients: int = RECIPIENTS) -> None:
    received = site.received()
    accepted, unknown = counts.get(TouchState.ACCEPTED, 0), counts.get(TouchState.UNKNOWN, 0)
    assert accepted + unknown == recipients, counts
    assert max(received.values()) == 1, "a recipient was mailed twice"
    # What the ledger calls accepted the provider has; what is unknown it may have.
    assert accepted <= len(received) <= accepted + unknown


async def test_worker_killed_in_mid_campaign_skips_and_repeats_no_recipient(site: Site) -> None:
    site.sandbox.use(SLOW)
    await site.launch(RECIPIENTS)
    site.start("recorder")
    worker = site.start("worker")
    await site.until(lambda: len(site.received()) >= RECIPIENTS // 4)
    await site.stop(worker, signal.SIGKILL)
    assert len(site.received()) < RECIPIENTS, "it was killed too late to show anything"
    site.start("worker")
    counts = await site.until_settled()
    assert_all_accounted_for(site, counts)
    assert counts.get(TouchState.UNKNOWN, 0) <= 20, "only what was on the wire may be unknown"


async def test_redis_restarted_in_mid_campaign_costs_nothing(site: Site) -> None:
    site.sandbox.use(SLOW)
    await site.launch(RECIPIENTS)
    site.start("recorder")
    worker = site.start("worker")
    await site.until(lambda: len(site.received()) >= RECIPIENTS // 4)
    site.redis.kill(signal.SIGKILL)
    site.redis.start()
    counts = await site.until_settled()
    assert_all_accounted_for(site, counts)
    assert worker.poll() is None, "the worker survives it"


async def test_redis_emptied_in_mid_campaign_is_rebuilt_from_the_ledger(site: Site) -> None:
    site.sandbox.use(SLOW)
    await site.launch(RECIPIENTS)
    site.start("recorder")
    site.start("worker")
    await site.until(lambda: len(site.received()) >= RECIPIENTS // 4)
    client = Redis.from_url(site.redis.url)
    await client.flushall()
    await client.aclose()
    assert len(site.received()) < RECIPIENTS, "it was emptied too late to show anything"
    rebuilt = site.json("queue", "rebuild")
    assert isinstance(rebuilt, dict)
    assert rebuilt["enqueued"] > 0
    gates = site.json("queue", "gate", "list")
    assert isinstance(gates, list)
    assert {gate["gate"]["name"]: gate["gate"]["rate"] for gate in gates}["queue"]["count"] == 5000, "it lost its limit"
    # As the maintenance flow does every ten minutes: what the ledger recorded after the first, the second finds.
    site.json("queue", "rebuild")
    counts = await site.until_settled()
    assert_all_accounted_for(site, counts)
    assert site.json("queue", "rebuild") == {"looked_at": 0, "enqueued": 0, "unknown": 0}


async def test_queue_in_shards_is_rebuilt_from_the_ledger(site: Site) -> None:
    await site.launch(20)
    # What an earlier version left: the number of the shards, and no job where this version looks for it.
    async with Redis.from_url(site.redis.url) as client:
        await client.flushall()
        await client.set("pr:{email:send}:layout", 4)
    refused = site.run("queue", "stats", check=False)
    assert refused.returncode == 7, refused.stderr
    assert "is in 4 shards" in refused.stderr
    assert site.json("queue", "rebuild") == {"looked_at": 20, "enqueued": 20, "unknown": 0}
    site.start("recorder")
    site.start("worker")
    assert_all_accounted_for(site, await site.until_settled(), 20)


async def test_smtp_server_down_for_a_while_delays_and_kills_nothing(site: Site) -> None:
    site.sandbox.use(SLOW)
    await site.launch(RECIPIENTS)
    site.start("recorder")
    site.start("worker")
    await site.until(lambda: len(site.received()) >= RECIPIENTS // 4)
    config, port = site.sandbox.config, site.sandbox.port
    await site.sandbox.__aexit__(None, None, None)
    await site.until(lambda: "route:sandbox is paused" in site.log("worker"))
    import msgspec

    async with Sandbox(msgspec.structs.replace(config, port=port)) as again:
        site.sandbox = again
        counts = await site.until_settled()
        assert_all_accounted_for(site, counts)
    assert counts.get(TouchState.DEAD, 0) == 0


async def test_sigterm_finishes_what_is_on_the_wire_and_gives_back_the_rest(site: Site) -> None:
    site.sandbox.use((SandboxRule(phase=RulePhase.DOT, fault=Fault(delay_ms=300)),))
    await site.launch(200)
    site.start("recorder")
    worker = site.start("worker")
    await site.until(lambda: len(site.received()) >= 20)
    assert await site.stop(worker, signal.SIGTERM) == 0
    before = len(site.received())
    assert 0 < before < 200
    site.sandbox.use(())
    site.start("worker")
    counts = await site.until_settled()
    assert counts == {TouchState.ACCEPTED: 200}, "nothing is unknown after a clean stop"
    assert_all_accounted_for(site, counts, 200)


async def test_second_signal_ends_the_worker_at_once(site: Site) -> None:
    site.sandbox.use((SandboxRule(phase=RulePhase.DOT, fault=Fault(delay_ms=20_000)),))
    await site.launch(20)
    worker = site.start("worker")
    # It waits for the answer to a message, which it may not leave: without one, the first signal would end it.
    await site.until(lambda: site.sandbox.counters.accepted > 0)
    worker.send_signal(signal.SIGTERM)
    await site.until(lambda: "stopping" in site.log("worker"))
    assert await site.stop(worker, signal.SIGTERM) == 128 + signal.SIGTERM
