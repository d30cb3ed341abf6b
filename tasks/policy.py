"""When a task is tried again, and how many run at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

import redis.exceptions
import sqlalchemy.exc
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.asyncio import concurrency, rate_limit
from prefect.tasks import exponential_backoff

from postroad.errors import UnavailableError

TRANSIENT: Final = (
    UnavailableError,
    sqlalchemy.exc.OperationalError,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
)
"""A server was away. Everything else fails the same way again, and is shown instead of repeated."""

BACKOFF: Final = exponential_backoff(backoff_factor=2)
"""2, 4, 8, 16 s …: a database that restarts is back within the first three."""

JITTER: Final = 0.3


@dataclass(frozen=True)
class Limit:
    """A global concurrency limit of the Prefect server; with decay, a rate of so many entries per second."""

    name: str
    slots: int
    decay_per_second: float = 0.0


CAMPAIGN_PROCESS: Final = Limit("campaign-process", slots=3)
CAMPAIGN_PROCESS_RATE: Final = Limit("campaign-process-rate", slots=10, decay_per_second=10.0)
DNS_CHECK: Final = Limit("dns-check", slots=10)
LIMITS: Final = (CAMPAIGN_PROCESS, CAMPAIGN_PROCESS_RATE, DNS_CHECK)


async def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Tell whether trying again may help. Prefect asks this before each retry."""
    return isinstance(await state.aresult(raise_on_failure=False), TRANSIENT)


P = ParamSpec("P")
R = TypeVar("R")


def retried(
    name: str,
    *,
    run_name: str | None = None,
    retries: int = 3,
    delays_s: list[float] | Callable[[int], list[float]] = BACKOFF,
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Task[P, Coroutine[Any, Any, R]]]:
    """A task of ours: tried again while a server is away, later each time, and never answered from Prefect's cache.

    The cache lies on one host's disk; what makes a repetition harmless is in the database and the queue.
    """
    return task(
        name=name,
        task_run_name=run_name,
        retries=retries,
        retry_delay_seconds=delays_s,
        retry_jitter_factor=JITTER,
        retry_condition_fn=is_transient,
        cache_policy=NO_CACHE,
    )


@asynccontextmanager
async def campaign_slot() -> AsyncIterator[None]:
    """Hold one of the slots that campaign orchestration has, on every worker together.

    Strict: a server without the limits refuses the task; it would otherwise run unlimited and only warn.
    """
    await rate_limit(CAMPAIGN_PROCESS_RATE.name, strict=True)
    async with concurrency(CAMPAIGN_PROCESS.name, strict=True):
        yield


@asynccontextmanager
async def dns_slot() -> AsyncIterator[None]:
    """Hold one of the slots for checks of DNS, on every worker together. Strict, as above."""
    async with concurrency(DNS_CHECK.name, strict=True):
        yield
