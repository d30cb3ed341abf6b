"""What a consumer may say about a job, and what it means for the queue. No input, no output."""

from __future__ import annotations

from random import Random
from typing import TypeAlias, assert_never

from msgspec import Struct

from postroad.queue.jobs import ClaimedJob

MAX_TEXT = 2000
"""Characters of a cause or an error that are kept."""


class Done(Struct, frozen=True, kw_only=True):
    """The act happened. ``note`` is opaque and goes into the event."""

    note: bytes = b""


class Retry(Struct, frozen=True, kw_only=True):
    """The attempt failed and is used up. ``at_ms`` None: as `RetryPolicy` says.

    The last attempt of the policy ends as a dead letter, whatever ``at_ms`` says.
    """

    cause: str
    error: str = ""
    at_ms: int | None = None
    note: bytes = b""


class Defer(Struct, frozen=True, kw_only=True):
    """Not now but later. No attempt is used. ``untried``: and what its claim took from gates is given back.

    ``delay_ms``: after so long, by the clock of the server. ``at_ms``: at a time of day instead, epoch.
    """

    cause: str
    at_ms: int | None = None
    delay_ms: int = 0
    error: str = ""
    note: bytes = b""
    untried: bool = False


class Dead(Struct, frozen=True, kw_only=True):
    """It can never work: a dead letter."""

    cause: str
    error: str = ""
    note: bytes = b""


class Uncertain(Struct, frozen=True, kw_only=True):
    """Whether the act happened is not known: held until somebody resolves it."""

    cause: str
    note: bytes = b""


class Cancel(Struct, frozen=True, kw_only=True):
    """No longer wanted. Ends the job; what its claim took from gates is given back."""

    cause: str
    note: bytes = b""


class Release(Struct, frozen=True, kw_only=True):
    """Not tried: back to the head of its lane, no attempt used, gates given back."""

    note: bytes = b""


Undone: TypeAlias = Retry | Defer | Dead | Uncertain | Cancel | Release
Verdict: TypeAlias = Done | Undone


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """``attempts`` in all; ``delays_ms`` between them, of which the last repeats.

    ``jitter`` 0.1 spreads a delay evenly over ±10 %.
    """

    attempts: int = 3
    delays_ms: tuple[int, ...] = (5_000, 10_000, 20_000)
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not self.delays_ms or not 0 <= self.jitter < 1:
            raise ValueError(f"{self} needs at least one attempt, one delay, and 0 <= jitter < 1")

    def delay_ms(self, attempt: int, rng: Random) -> int:
        """Delay behind this attempt (from 1), ms."""
        delay = self.delays_ms[min(attempt, len(self.delays_ms)) - 1]
        return round(delay * (1 + self.jitter * rng.uniform(-1, 1))) if self.jitter else delay


class SettleCommand(Struct, frozen=True, array_like=True):
    """Any verdict but `Done` as the script ``settle`` reads it. ``at_ms`` 0: ``delay_ms`` after the server's now."""

    id: str
    token: int
    verdict: str
    at_ms: int = 0
    delay_ms: int = 0
    cause: str = ""
    error: str = ""


def to_command(job: ClaimedJob, verdict: Undone, policy: RetryPolicy, rng: Random) -> SettleCommand:
    """Decide what the queue is to do with this job. The delay is relative, so no client clock is trusted."""
    match verdict:
        case Retry() if job.attempt >= policy.attempts:
            return SettleCommand(job.id, job.token, "dead", cause=_plain(verdict.cause), error=_plain(verdict.error))
        case Retry() if verdict.at_ms is None:
            delay_ms = policy.delay_ms(job.attempt, rng)
            return SettleCommand(job.id, job.token, "retry", 0, delay_ms, _plain(verdict.cause), _plain(verdict.error))
        case Retry():
            at_ms = max(verdict.at_ms or 0, 1)
            return SettleCommand(job.id, job.token, "retry", at_ms, 0, _plain(verdict.cause), _plain(verdict.error))
        case Defer():
            return SettleCommand(
                job.id,
                job.token,
                "put_off" if verdict.untried else "defer",
                0 if verdict.at_ms is None else max(verdict.at_ms, 1),
                verdict.delay_ms,
                _plain(verdict.cause),
                _plain(verdict.error),
            )
        case Dead():
            return SettleCommand(job.id, job.token, "dead", cause=_plain(verdict.cause), error=_plain(verdict.error))
        case Uncertain():
            return SettleCommand(job.id, job.token, "uncertain", cause=_plain(verdict.cause))
        case Cancel():
            return SettleCommand(job.id, job.token, "cancelled", cause=_plain(verdict.cause))
        case Release():
            return SettleCommand(job.id, job.token, "released")
        case _:
            assert_never(verdict)


def _plain(text: str) -> str:
    """Bounded, and free of the lone surrogates that a reply decoded with `surrogateescape` brings along."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()
