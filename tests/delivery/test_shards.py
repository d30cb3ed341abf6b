"""Mail on a queue in shards: a sender's limits are exact, others are divided, and lost ones are set again."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postroad.delivery.job import (
    QUEUE_GATE,
    SEND_QUEUE,
    campaign_gate,
    gate_key,
    hold_gate,
    lane_of,
    provider_gate,
    receiver_of,
    route_gate,
    sender_gate,
    warmup_gate,
)
from postroad.delivery.limits import gates_of, restore_limits, set_limits
from postroad.errors import StateError
from postroad.parts import open_parts
from postroad.queue import Job, Queue, open_queue
from postroad.queue.server import connect
from postroad.queue.shards import ShardedQueue
from postroad.queue.shares import shard_of_lane
from postroad.settings import Settings

ADA = "ada@example.com"
SHARDS = 4


def test_a_senders_gates_have_its_key_and_others_have_none() -> None:
    assert gate_key(sender_gate(ADA)) == gate_key(hold_gate(ADA)) == gate_key(provider_gate(ADA, "gmail")) == ADA
    odd = "a:b@example.com"
    assert gate_key(sender_gate(odd)) == gate_key(hold_gate(odd)) == gate_key(provider_gate(odd, "gmail")) == odd
    assert gate_key(warmup_gate("google", odd)) == odd
    assert gate_key(provider_gate(ADA, receiver_of("google", "site.mx.x.net/domain.x.net"))) == ADA
    for gate in (QUEUE_GATE, route_gate("relay"), campaign_gate("sender"), warmup_gate("google", "2001:db8::1")):
        assert gate_key(gate) is None


def test_all_lanes_of_a_sender_are_in_one_shard() -> None:
    lanes = [
        lane_of(sender=ADA, provider=provider, campaign=campaign, route="relay", job_class="bulk")
        for provider in ("gmail", "other")
        for campaign in ("spring", "autumn")
    ]
    assert len({shard_of_lane(lane, gate_key, SHARDS) for lane in lanes}) == 1


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with open_queue(redis_url, f"mail-{uuid.uuid4().hex}", shards=SHARDS, key_of=gate_key) as queue:
        yield queue


async def test_limits_that_one_shard_lost_are_set_again(queue: Queue, redis_url: str) -> None:
    settings = Settings()
    limits = settings.queue(SEND_QUEUE).model_copy(update={"shards": 8})
    gates = gates_of(settings, limits)
    # What is shipped is enough for as many shards as there are.
    assert gates[0].rate
    assert gates[0].rate.burst == 8
    await set_limits(queue, gates)
    assert await restore_limits(queue, gates) == 0
    base = f"pr:{{{queue.name}:1}}"
    client = connect(redis_url, base)
    await client.execute_command("DEL", f"{base}:gate:{QUEUE_GATE}")
    await client.aclose()
    assert await restore_limits(queue, gates) == 1
    assert (await queue.gates())[0].gate == gates[0]


async def test_the_settings_say_in_how_many_shards_a_queue_lies(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"mail-{uuid.uuid4().hex}"
    monkeypatch.setenv("POSTROAD_REDIS_URL", redis_url)
    monkeypatch.setenv("POSTROAD_STATE_DIR", str(tmp_path))

    def settings(shards: int) -> Settings:
        config = tmp_path / "postroad.toml"
        config.write_text(f'[queues."{name}"]\nshards = {shards}\n', encoding="utf-8")
        return Settings.load(config)

    lane = lane_of(sender=ADA, provider="gmail", campaign="spring", route="relay", job_class="bulk")
    async with open_parts(settings(SHARDS)) as parts:
        opened = await parts.queue(name)
        assert isinstance(opened, ShardedQueue)
        await opened.enqueue(lane, [Job(id="1", payload=b"")])
    async with open_parts(settings(2)) as parts:
        with pytest.raises(StateError, match="lies in 4 shards and not in 2"):
            await parts.queue(name)
