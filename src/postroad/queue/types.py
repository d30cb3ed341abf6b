"""Jobs, lanes, verdicts and options of a queue. Times are ms since the epoch, durations ms."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from enum import StrEnum
from random import Random
from typing import Any, NamedTuple, Protocol, TypeAlias, TypedDict, TypeVar

from msgspec import Struct
from msgspec.structs import replace

MAX_GATES = 10


class JobClass(StrEnum):
    """Urgency of a lane. Classes share a full queue as 8 : 4 : 1, so no class starves another."""

    URGENT = "urgent"
    NORMAL = "normal"
    BULK = "bulk"


class JobState(StrEnum):
    """State of a job. ``REMEMBERED``: it ended, and its outcome is not acknowledged yet."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    IN_FLIGHT = "in_flight"
    UNCERTAIN = "uncertain"
    DEAD = "dead"
    REMEMBERED = "remembered"


class Job(Struct, frozen=True, kw_only=True):
    """One job. ``due_ms`` 0: now. ``expires_ms`` 0: never; an expired job ends and is not claimed."""

    id: str
    payload: bytes
    due_ms: int = 0
    expires_ms: int = 0


class Lane(Struct, frozen=True, kw_only=True):
    """A FIFO of jobs that share all their gates.

    A lane is identified by its whole definition. The same name with other gates, class or weight is another lane, and
    queued jobs stay in theirs. ``weight``: share among the lanes of the class. ``gates``: tried in order, at most 10. A
    gate that was never set admits every job. ``group``: lanes that are paused, resumed and cancelled together.
    """

    name: str
    gates: tuple[str, ...]
    job_class: JobClass = JobClass.NORMAL
    weight: float = 1.0
    group: str = ""

    def __post_init__(self) -> None:
        if len(set(self.gates)) != len(self.gates) or len(self.gates) > MAX_GATES:
            raise ValueError(f"lane {self.name} names at most {MAX_GATES} gates, each once: {self.gates}")
        if not self.weight > 0:
            raise ValueError(f"lane {self.name} has weight {self.weight}; it must be above 0")


class ClaimedJob(Struct, frozen=True):
    """One job under lease.

    ``token``: fencing token. A lease with an older one can neither be marked nor settled. ``attempt``: attempts that
    are used, including this one, from 1. ``claim``: 1 + the number of earlier claims that are known to have ended
    without the irreversible act. ``closed``: tokens of the last eight of these. After a loss of data the queue may
    lease a job again whose act happened; ``closed`` does not contain the token of that claim.
    """

    id: str
    token: int
    attempt: int
    claim: int
    payload: bytes
    expires_ms: int
    lane: str
    closed: tuple[int, ...] = ()


class Batch(Struct, frozen=True):
    """Claimed jobs. ``next_ms``: earliest time at which another claim may find a job. None: no job waits.

    ``events_full``: no job was claimed, because too many events are not recorded. See `Retention`. ``more``: lanes are
    still ready. With fewer jobs than wanted, the claim reached its limit of lanes, most of which were refused by their
    gates: claim again at once.
    """

    jobs: list[ClaimedJob]
    next_ms: int | None
    events_full: bool = False
    more: bool = False


class Enqueued(Struct, frozen=True):
    """Counts of an enqueue. ``known``: ids that the queue already had; their jobs are unchanged."""

    accepted: int
    known: int


class SettleResult(Struct, frozen=True):
    """``stale``: ids whose lease was lost, so that their verdict changed nothing. ``batch``: the claimed jobs."""

    stale: list[str]
    batch: Batch


class Reaped(Struct, frozen=True):
    """Counts of expired leases. ``released``: back in their lanes. ``uncertain``: held, because they were marked, or
    were older than a restart of the server, which may have lost a mark.
    """

    released: int
    uncertain: int


class Done(Struct, frozen=True, kw_only=True):
    """The act happened. ``note``: opaque data for the event."""

    note: bytes = b""


class Retry(Struct, frozen=True, kw_only=True):
    """The attempt failed and counts. ``at_ms``: time of the next one. None: by `RetryPolicy`.

    After the last attempt of the policy the job is a dead letter, also with ``at_ms``.
    """

    cause: str
    error: str = ""
    at_ms: int | None = None
    note: bytes = b""


class Defer(Struct, frozen=True, kw_only=True):
    """Try later. The attempt does not count. ``untried``: return also what the claim took from gates.

    ``delay_ms``: delay by the server's clock. ``at_ms``: a time instead of a delay.
    """

    cause: str
    at_ms: int | None = None
    delay_ms: int = 0
    error: str = ""
    note: bytes = b""
    untried: bool = False


class Dead(Struct, frozen=True, kw_only=True):
    """The job cannot succeed: it becomes a dead letter."""

    cause: str
    error: str = ""
    note: bytes = b""


class Uncertain(Struct, frozen=True, kw_only=True):
    """Whether the act happened is not known. The job is held until `Queue.resolve`."""

    cause: str
    note: bytes = b""


class Cancel(Struct, frozen=True, kw_only=True):
    """End the job without an attempt. What its claim took from gates is returned."""

    cause: str
    note: bytes = b""


class Release(Struct, frozen=True, kw_only=True):
    """Return the job to the head of its lane. No attempt counts, and what its claim took from gates is returned."""

    note: bytes = b""


Undone: TypeAlias = Retry | Defer | Dead | Uncertain | Cancel | Release
Verdict: TypeAlias = Done | Undone


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """``attempts``: in total. ``delays_ms``: between them; the last one repeats.

    ``jitter``: 0.1 spreads a delay evenly over ±10 %.
    """

    attempts: int = 3
    delays_ms: tuple[int, ...] = (5_000, 10_000, 20_000)
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not self.delays_ms or not 0 <= self.jitter < 1:
            raise ValueError(f"{self} needs at least one attempt, one delay, and 0 <= jitter < 1")

    def delay_ms(self, attempt: int, rng: Random) -> int:
        """Return the delay after an attempt, in ms.

        Args:
            attempt: Number of the attempt that failed, from 1.
            rng: Source of the jitter.
        """
        delay = self.delays_ms[min(attempt, len(self.delays_ms)) - 1]
        return round(delay * (1 + self.jitter * rng.uniform(-1, 1))) if self.jitter else delay


class RetentionBounds(NamedTuple):
    """The part of `Retention` that the scripts read."""

    remember_ms: int
    done_kept: int
    failed_kept: int
    events_cap: int


class Retention(Struct, frozen=True, kw_only=True):
    """How much a queue stores of ended jobs. All workers of a queue must use the same.

    ``done``, ``failed``: at least the last jobs that completed, and that died or expired. Dead letters are not limited:
    they stay until they are replayed or dropped. ``remember_ms``: time for which an ended id stays known if its outcome
    is not acknowledged. ``events``: no job is claimed while this many events are not acknowledged, because no event is
    dropped unread. Without a consumer group, the newest this many are kept. ``consumer_ms``: an idle consumer without
    pending events is deleted after this time.
    """

    done: int = 1000
    failed: int = 5000
    remember_ms: int = 7 * 24 * 3600 * 1000
    events: int = 1_000_000
    consumer_ms: int = 3_600_000

    def __post_init__(self) -> None:
        if min(self.done, self.failed, self.remember_ms, self.consumer_ms) < 0 or self.events < 100:
            raise ValueError(f"{self} is not valid: events is at least 100, the others at least 0")

    @property
    def bounds(self) -> RetentionBounds:
        """Arguments of the scripts."""
        return RetentionBounds(self.remember_ms, self.done, self.failed, self.events)


class QueueOptions(Struct, frozen=True, kw_only=True):
    """How a queue treats its jobs.

    ``retry``: number of attempts and their delays. ``retention``: how much of ended jobs is stored. ``ephemeral``:
    accept a server that may lose jobs. ``durable``: accept a server that does not show that it keeps jobs, because its
    operator guarantees it; a warning is logged. ``sync_replicas``: replicas that must confirm a job before
    `Queue.enqueue` returns, and a mark before `Queue.mark` does.
    """

    retry: RetryPolicy = RetryPolicy()
    retention: Retention = Retention()
    ephemeral: bool = False
    durable: bool = False
    sync_replicas: int = 0


class OldQueueKeywords(TypedDict, total=False):
    """Keywords of `Queue.open` that `QueueOptions` replaced. They are accepted for one release."""

    retry: RetryPolicy
    retention: Retention
    ephemeral: bool
    sync_replicas: int


class OldWorkerKeywords(TypedDict, total=False):
    """Keywords of `Worker` that `WorkerOptions` replaced. They are accepted for one release."""

    name: str | None
    lease_ms: int
    drain_ms: int
    watchdog_ms: int
    idle_ms: int


Options = TypeVar("Options", bound=Struct)


def with_old_keywords(options: Options, old: Mapping[str, Any]) -> Options:
    """Return options with the values of keywords that were parameters of their own, and warn of them.

    Raises:
        TypeError: There is no option of such a name.
    """
    if not old:
        return options
    names = ", ".join(sorted(old))
    warnings.warn(f"{names}: pass {type(options).__name__} as options", DeprecationWarning, stacklevel=3)
    return replace(options, **old)


class Metrics(Protocol):
    """Receives measurements of a queue and its workers. `postroad.queue.metrics.QueueMetrics` exports them."""

    def script_ran(self, queue: str, script: str, seconds: float) -> None:
        """Count one call of a script, also a failed one, and its duration."""
        ...

    def worked(self, queue: str, *, claimed: int, settled: Iterable[str], stale: int) -> None:
        """Count the jobs of one call of a worker. ``settled``: names of verdicts."""
        ...

    def watchdog_tripped(self, queue: str) -> None:
        """Count a worker that was idle while jobs were ready."""
        ...
