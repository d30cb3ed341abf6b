"""What goes into the queue and what comes out of it. Instants are milliseconds since the epoch."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

MAX_GATES = 10


class JobClass(StrEnum):
    """How urgent a lane is. Shares of a full queue are 8 : 4 : 1; none ever waits for another to be empty."""

    URGENT = "urgent"
    NORMAL = "normal"
    BULK = "bulk"


class JobState(StrEnum):
    """Where an id is. ``REMEMBERED``: its job ended, and nobody has said yet that the outcome is recorded."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    IN_FLIGHT = "in_flight"
    UNCERTAIN = "uncertain"
    DEAD = "dead"
    REMEMBERED = "remembered"


class Job(Struct, frozen=True, kw_only=True):
    """One job. ``due_ms`` 0: now. ``expires_ms`` 0: never; an expired job ends and is not handed out."""

    id: str
    payload: bytes
    due_ms: int = 0
    expires_ms: int = 0


class Lane(Struct, frozen=True, kw_only=True):
    """A FIFO of jobs that share all their gates. A lane is its whole definition.

    The same name with other gates, class or weight is another lane: jobs already queued keep what
    they were queued with. ``weight`` is the lane's share among the lanes of its class.
    ``gates`` are tried in order, at most 9; a gate that was never set admits everything.
    ``group``: what is paused, resumed and cancelled together, as a campaign is.
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

    ``token`` fences: whoever holds an older one can neither mark nor settle. ``attempt`` counts
    attempts used, this one included, from 1. ``claim`` is 1 + the number of earlier claims of the
    job which the queue knows to have ended without the irreversible act; ``closed`` are the tokens of the
    last eight of these. A server that lost its memory may hand out a job that somebody acted upon: that
    somebody's token is in no ``closed`` then.
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
    """Jobs claimed, and the earliest instant at which asking again is worth it (None: nothing waits).

    ``events_full``: nothing was claimed because too many events wait to be recorded. See `Retention`.
    ``more``: lanes are ready still. With less than was wanted it means that the claim had looked at as many
    lanes as one may, most of which their gates refused: ask again at once.
    """

    jobs: list[ClaimedJob]
    next_ms: int | None
    events_full: bool = False
    more: bool = False


class Enqueued(Struct, frozen=True):
    """``known`` ids were left as they are."""

    accepted: int
    known: int


class SettleResult(Struct, frozen=True):
    """``stale`` ids changed nothing: their lease is no longer the caller's."""

    stale: list[str]
    batch: Batch


class Reaped(Struct, frozen=True):
    """Expired leases: ``released`` to their lanes, or held as ``uncertain``: marked, or older than a restart of the
    server, which may have lost their marks.
    """

    released: int
    uncertain: int
