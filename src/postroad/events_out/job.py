"""The jobs of `webhook:out`: one for each delivery. Each endpoint has a lane, a gate and a group of its own."""

from __future__ import annotations

import msgspec

from postroad.gates.name import QUEUE_GATE
from postroad.queue import Job, Lane
from postroad.settings.queues import WEBHOOK_QUEUE
from postroad.store.webhook_out import OpenDelivery

__all__ = ["WEBHOOK_QUEUE", "SendWebhook", "decode_job", "encode_job", "gate_of", "job_id", "job_of", "lane_of"]


class SendWebhook(msgspec.Struct, frozen=True, kw_only=True, tag="webhook.v1"):
    """Payload of a job: the number of the delivery. It contains no address and no secret."""

    delivery: int


encode_job = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(SendWebhook).decode


def gate_of(endpoint: str) -> str:
    """Return the gate of an endpoint, which limits its concurrent requests. Its group has the same name."""
    return f"endpoint/{endpoint}"


def lane_of(endpoint: str) -> Lane:
    """Return the lane of an endpoint."""
    return Lane(name=endpoint, gates=(str(QUEUE_GATE), gate_of(endpoint)), group=gate_of(endpoint))


def job_id(delivery: OpenDelivery) -> str:
    """Return the id of the job of a delivery: endpoint, event, and the number of the replay or redelivery."""
    return f"{delivery.endpoint}:{delivery.message_id}:{delivery.round}"


def job_of(delivery: OpenDelivery) -> Job:
    """Return the job of a delivery."""
    return Job(id=job_id(delivery), payload=encode_job(SendWebhook(delivery=delivery.id)))
