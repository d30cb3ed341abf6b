"""Retries and concurrency limits of tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

import redis.exceptions
import sqlalchemy.exc
from prefect import Task, get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError, concurrency, rate_limit
from prefect.exceptions import ObjectAlreadyExists
from prefect.tasks import exponential_backoff

from postroad.errors import UnavailableError

TRANSIENT: Final = (
    UnavailableError,
    sqlalchemy.exc.OperationalError,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
)
"""Errors of an unavailable server. Other errors would repeat, so they are not retried."""

BACKOFF: Final = exponential_backoff(backoff_factor=2)
"""2, 4, 8, 16 s …: a database that restarts is available within the first three."""

JITTER: Final = 0.3


@dataclass(frozen=True)
class Limit:
    """A global concurrency limit of the Prefect server. With decay it is a rate, in entries per second."""

    name: str
    slots: int
    decay_per_second: float = 0.0


CAMPAIGN_PROCESS: Final = Limit("campaign-process", slots=3)
CAMPAIGN_PROCESS_RATE: Final = Limit("campaign-process-rate", slots=10, decay_per_second=10.0)
DNS_CHECK: Final = Limit("dns-check", slots=10)
LIMITS: Final = (CAMPAIGN_PROCESS, CAMPAIGN_PROCESS_RATE, DNS_CHECK)


async def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Return whether a retry may help. Prefect calls this before each retry."""
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
    """Make a task that is retried with backoff while a server is unavailable, and never uses Prefect's cache.

    The cache is on the disk of one host. Database and queue make a task idempotent.

    Args:
        name: Name of the task.
        run_name: Template for the name of its runs.
        retries: Number of retries.
        delays_s: Delays before the retries, in seconds.

    Returns:
        A decorator.
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
    """Hold one of the slots of campaign orchestration, which all workers share.

    It is strict: without its limit a task would run unlimited and only warn. So a missing limit is created.
    """
    await _or_create(CAMPAIGN_PROCESS_RATE, lambda: rate_limit(CAMPAIGN_PROCESS_RATE.name, strict=True))
    async with _slot(CAMPAIGN_PROCESS):
        yield


@asynccontextmanager
async def dns_slot() -> AsyncIterator[None]:
    """Hold one of the slots for DNS checks, which all workers share. Strict, see `campaign_slot`."""
    async with _slot(DNS_CHECK):
        yield


@asynccontextmanager
async def _slot(limit: Limit) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        await _or_create(limit, lambda: stack.enter_async_context(concurrency(limit.name, strict=True)))
        yield


async def _or_create(limit: Limit, acquire: Callable[[], Awaitable[None]]) -> None:
    """Acquire a slot. Create its limit if the server has none, because only `prefect deploy` was run."""
    try:
        await acquire()
    except ConcurrencySlotAcquisitionError:
        async with get_client() as client:
            await create_limit(client, limit)
        await acquire()


async def create_limit(client: PrefectClient, limit: Limit) -> None:
    """Create a limit on the server if it is missing. An existing one is not changed."""
    wanted = GlobalConcurrencyLimitCreate(
        name=limit.name, limit=limit.slots, slot_decay_per_second=limit.decay_per_second
    )
    with suppress(ObjectAlreadyExists):  # Another run was first.
        await client.create_global_concurrency_limit(wanted)
