"""Settings of queues."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self, assert_never

from pydantic import AfterValidator, Field, model_validator

from postroad.settings.types import MAX_DURATION_MS, DurationMs, RateField, RateSetting, Section


class RetryBackoff(StrEnum):
    """How the delay between attempts changes."""

    FIXED = "fixed"
    EXPONENTIAL = "exponential"
    LIST = "list"


def _require_one_shard(shards: int) -> int:
    if shards != 1:
        raise ValueError(
            "a queue is no longer split into shards. Empty it with the previous version, set shards = 1 there, "
            "and remove the setting; or remove it and run `postroad queue rebuild`"
        )
    return shards


class QueueSettings(Section):
    """Limits and retries of a queue."""

    concurrency: int = Field(default=10, ge=1, le=10_000, description="concurrent jobs of each worker process")
    rate: RateField | None = Field(default=None, description="of the whole queue, for all workers")
    burst: int | None = Field(default=None, ge=1, description="burst of the rate, in jobs; default: 50 ms' worth")
    lease_ms: DurationMs = Field(default=60_000, ge=1000, le=MAX_DURATION_MS)
    drain_ms: DurationMs = Field(
        default=20_000, ge=0, le=MAX_DURATION_MS, description="longest time from SIGTERM to exit"
    )
    attempts: int = Field(default=3, ge=1, le=100, description="attempts in total; then the job is a dead letter")
    backoff: RetryBackoff = RetryBackoff.EXPONENTIAL
    delay_ms: DurationMs = Field(default=5_000, ge=0, description="delay of `fixed`, first delay of `exponential`")
    max_delay_ms: DurationMs = Field(default=3_600_000, ge=0, description="largest delay of `exponential`")
    delays_ms: tuple[DurationMs, ...] = Field(default=(), description="delays of `list`; the last one repeats")
    sync_replicas: int = Field(default=0, ge=0, le=10, description="replicas that must confirm each job and mark")
    jitter: float = Field(default=0.0, ge=0, lt=1, description="0.1: a delay varies from 90 % to 110 %")
    shards: Annotated[int, AfterValidator(_require_one_shard)] | None = Field(
        default=None, description="deprecated: only 1 is allowed, and the next release removes it"
    )

    @model_validator(mode="after")
    def _delays_match_the_backoff(self) -> Self:
        if (self.backoff is RetryBackoff.LIST) != bool(self.delays_ms):
            raise ValueError("delays_ms is required with backoff 'list' and only allowed there")
        return self

    @property
    def retry_delays_ms(self) -> tuple[int, ...]:
        """Delay in ms after each attempt but the last. The last delay repeats."""
        match self.backoff:
            case RetryBackoff.LIST:
                return self.delays_ms
            case RetryBackoff.FIXED:
                return (self.delay_ms,)
            case RetryBackoff.EXPONENTIAL:
                return tuple(min(self.delay_ms * 2**n, self.max_delay_ms) for n in range(max(self.attempts - 1, 1)))
            case other:
                assert_never(other)


WEBHOOK_QUEUE = "webhook:out"

RETENTION = {WEBHOOK_QUEUE: {"remember_ms": 600_000, "events": 10_000}}
"""Bounds of what a queue keeps of ended jobs, where they are not the default: the ledger knows each delivery."""

DEFAULT_QUEUES = {
    "email:send": QueueSettings(concurrency=10, rate=RateSetting(count=100, per_ms=1000)),
    "email:warmup": QueueSettings(concurrency=5, rate=RateSetting(count=50, per_ms=1000)),
    "bounce:process": QueueSettings(concurrency=10),
    # The schedule that Standard Webhooks proposes: three days and three hours in total.
    WEBHOOK_QUEUE: QueueSettings(
        concurrency=50,
        attempts=10,
        backoff=RetryBackoff.LIST,
        delays_ms=(5_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 36_000_000, 50_400_000, 72_000_000, 86_400_000),
        jitter=0.1,
    ),
}
"""Default settings of every queue that Postroad uses. A section of postroad.toml replaces single fields."""
