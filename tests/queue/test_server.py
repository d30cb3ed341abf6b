from __future__ import annotations

import asyncio
import contextlib
import signal

import pytest

from postroad.errors import ConfigError, StateError, UnavailableError
from postroad.queue import Job, Lane, Queue, QueueOptions, forget_shards, scripts
from postroad.queue.redis.client import connect
from postroad.queue.redis.server import Health, durability_error, inspect_servers
from tests.conftest import RedisServer
from tests.kit.waiting import until
from tests.queue.conftest import jobs

LANE = Lane(name="a", gates=())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--appendonly", "no"), "append-only file"),
        (("--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), "evicts keys"),
    ],
)
async def test_a_server_that_may_lose_jobs_is_rejected_by_default(
    own_redis: RedisServer, options: tuple[str, ...], words: str
) -> None:
    own_redis.kill()
    own_redis.start(*options)
    with pytest.raises(StateError, match=words) as caught:
        async with Queue.open(own_redis.url, "q"):
            pass
    assert caught.value.remedy
    assert "ephemeral=True" in caught.value.remedy
    async with Queue.open(own_redis.url, "q", options=QueueOptions(ephemeral=True)) as queue:
        assert (await queue.enqueue(LANE, jobs("1"))).accepted == 1


async def test_a_server_that_hides_its_durability_is_used_if_the_operator_vouches_for_it(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.kill()
    own_redis.start("--appendonly", "no")
    with pytest.raises(StateError) as caught:
        async with Queue.open(own_redis.url, "q"):
            pass
    assert "redis_durable = true" in str(caught.value.remedy)
    async with Queue.open(own_redis.url, "q", options=QueueOptions(durable=True)) as queue:
        assert (await queue.enqueue(LANE, jobs("1"))).accepted == 1
    assert "cannot see an append-only file" in caplog.text
    [finding] = await inspect_servers(own_redis.url, durable=True)
    assert (finding.health, "cannot see an append-only file" in finding.seen) == (Health.WARN, True)


async def test_an_eviction_that_a_server_shows_is_refused_in_any_case(own_redis: RedisServer) -> None:
    own_redis.kill()
    own_redis.start("--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    with pytest.raises(StateError, match="evicts keys"):
        async with Queue.open(own_redis.url, "q", options=QueueOptions(durable=True)):
            pass
    [finding] = await inspect_servers(own_redis.url, durable=True)
    assert finding.health is Health.FAIL


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"redis_version": "7.2"}, "does not show an append-only file and whether it evicts keys"),
        ({"aof_enabled": 1, "maxmemory": 10}, "does not show whether it evicts keys"),
        ({"aof_enabled": 0, "maxmemory_policy": "noeviction"}, "has no append-only file"),
        ({"aof_enabled": 1, "maxmemory_policy": "noeviction"}, ""),
        ({"aof_enabled": 1, "maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, ""),
    ],
)
def test_what_a_server_does_not_show_is_in_the_error(info: dict[str, object], says: str) -> None:
    error = durability_error(info)
    assert says in (error.message if error else "")
    assert bool(error) == bool(says)
    assert durability_error(info, durable=True) is None


async def write_layout(redis_url: str, name: str, shards: int) -> None:
    key = f"pr:{{{name}}}:layout"
    client = connect(redis_url, key)
    await client.execute_command("SET", key, shards)
    await client.aclose()


async def test_a_sharded_queue_is_rejected_until_its_record_is_deleted(redis_url: str) -> None:
    # The record of version 0.1 for a queue with `shards = 4`. The shards are separate queues.
    await write_layout(redis_url, "sharded", 4)
    async with Queue.open(redis_url, "sharded:3") as shard:
        await shard.enqueue(LANE, jobs("1"))
    with pytest.raises(StateError, match="is in 4 shards") as caught:
        async with Queue.open(redis_url, "sharded"):
            pass
    assert "postroad queue rebuild" in str(caught.value.remedy)
    await forget_shards(redis_url, "sharded")
    await forget_shards(redis_url, "sharded")
    async with Queue.open(redis_url, "sharded") as queue:
        assert (await queue.enqueue(LANE, jobs("1"))).accepted == 1


async def test_a_queue_with_one_shard_opens(redis_url: str) -> None:
    await write_layout(redis_url, "whole", 1)
    async with Queue.open(redis_url, "whole") as queue:
        assert (await queue.stats()).queued == 0


async def test_a_limit_without_eviction_is_accepted(own_redis: RedisServer) -> None:
    own_redis.kill()
    own_redis.start("--appendonly", "yes", "--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
    async with Queue.open(own_redis.url, "q") as queue:
        with pytest.raises(UnavailableError, match="full"):
            await queue.enqueue(LANE, [Job(id=f"{n}", payload=bytes(1_000_000)) for n in range(100)])


async def test_a_stopped_server_is_unavailable(own_redis: RedisServer) -> None:
    async with Queue.open(own_redis.url, "q") as queue:
        own_redis.kill()
        with pytest.raises(UnavailableError, match="does not answer"):
            await queue.stats()
        with pytest.raises(UnavailableError, match="does not answer"):
            await queue.read_events("g", "c", count=1, block_ms=0)
        own_redis.start()
        assert (await queue.stats()).queued == 0
    own_redis.kill()
    with pytest.raises(UnavailableError):
        async with Queue.open(own_redis.url, "q"):
            pass
    own_redis.start()


async def test_a_loading_server_is_unavailable(own_redis: RedisServer) -> None:
    client = connect(own_redis.url)
    await client.eval("for n = 1, 6000 do redis.call('SET', n, '') end", 0)
    await client.aclose()
    own_redis.kill()
    slow = ("--appendonly", "yes", "--key-load-delay", "150")  # microseconds a key
    starting = asyncio.create_task(asyncio.to_thread(own_redis.start, *slow))
    messages: set[str] = set()
    async with asyncio.timeout(20):
        while True:
            try:
                async with Queue.open(own_redis.url, "q"):
                    break
            except UnavailableError as error:
                messages.add(error.message)
                await asyncio.sleep(0.01)
    await starting
    assert "The queue's Redis server does not answer: it is still loading" in messages


async def test_an_invalid_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="not the address"):
        async with Queue.open("localhost:6379", "q"):
            pass


async def test_scripts_are_sent_again_after_a_flush(redis_url: str) -> None:
    async with Queue.open(redis_url, "forgot") as queue:
        await queue.enqueue(LANE, jobs("1"))
        client = connect(redis_url)
        await client.execute_command("SCRIPT", "FLUSH")
        await client.aclose()
        batch = await queue.claim("w", want=1, lease_ms=1000, nonce="n")
        assert [job.id for job in batch.jobs] == ["1"]


async def test_queues_on_one_server_are_independent(redis_url: str) -> None:
    async with Queue.open(redis_url, "one") as one, Queue.open(redis_url, "two") as two:
        await one.enqueue(LANE, jobs("1"))
        assert (await two.enqueue(LANE, jobs("1"))).accepted == 1
        assert (await one.stats()).queued == (await two.stats()).queued == 1


@pytest.mark.parametrize("name", ["", "a}b"])
async def test_a_queue_name_with_a_brace_is_rejected(redis_url: str, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        async with Queue.open(redis_url, name):
            pass


async def test_a_cancelled_call_ends(redis_url: str) -> None:
    async with Queue.open(redis_url, "cancelled") as queue:

        async def ask_for_ever() -> None:
            while True:
                await queue.stats()

        for n in range(60):
            task = asyncio.create_task(ask_for_ever())
            # At any await of the call.
            for _ in range(n):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=5)
            assert done, f"it went on, {n} steps from its start"
        # Connections that were cut off have no effect.
        assert (await queue.stats()).queued == 0


async def test_a_silent_server_counts_as_lost(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "REPLY_S", 0.05)
    async with Queue.open(own_redis.url, "silent") as queue:
        await queue.stats()
        own_redis.signal(signal.SIGSTOP)
        try:
            with pytest.raises(UnavailableError):
                await queue.stats()
        finally:
            own_redis.signal(signal.SIGCONT)

        async def answers() -> bool:
            with contextlib.suppress(UnavailableError):
                await queue.stats()
                return True
            return False

        await until(answers)
