"""Handles the jobs of `webhook:out`: sends one event to one endpoint, records the attempt, and decides what follows.

A delivery is repeated until a response with a status 2xx is recorded. A worker that dies in between sends it again, so
a receiver may get an event twice, always with the same ``webhook-id``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa

from postroad.clock import Clock
from postroad.events_out.attempt_log import AttemptLog, AttemptResult
from postroad.events_out.body import body_of, encode_body
from postroad.events_out.client import EndpointClient, WebhookAnswer, WebhookOutcome
from postroad.events_out.job import decode_job, gate_of
from postroad.events_out.signature import WebhookSigner
from postroad.queue import Cancel, ClaimedJob, Defer, Done, Lease, Queue, Retry, Verdict
from postroad.store.engine import read, write
from postroad.store.event_stream import PublishedEvent, published_events
from postroad.store.webhook_log import LoggedAttempt
from postroad.store.webhook_out import (
    OpenDelivery,
    WebhookDeliveryState,
    deliveries_by_id,
    endpoint_states,
    settle_deliveries,
)

log = logging.getLogger(__name__)

DISABLED_DELAY_MS: Final = 60_000
FAILURES_IN_A_ROW: Final = 5
"""Failures of one endpoint after which its gate is paused, so that no attempts are used up while it is down."""
MAX_PAUSE_MS: Final = 300_000
_OF_ENDPOINT: Final = frozenset({WebhookOutcome.TIMEOUT, WebhookOutcome.UNREACHABLE, WebhookOutcome.FORBIDDEN})

CountAttempt = Callable[[str, str, float], None]
"""Counts an attempt for metrics: endpoint, outcome, duration in seconds."""


class WebhookTarget(NamedTuple):
    """An endpoint of the settings, ready to be used."""

    client: EndpointClient
    signer: WebhookSigner


class _Prepared(NamedTuple):
    delivery: OpenDelivery
    event: PublishedEvent


class AfterAttempt(NamedTuple):
    """What follows from an attempt. ``state`` None: the delivery still waits. ``pause_ms`` 0: no pause of the gate."""

    verdict: Verdict
    state: WebhookDeliveryState | None = None
    pause_ms: int = 0
    disable_for: str | None = None


def decide(answer: WebhookAnswer, *, attempt: int, attempts: int, failures: int) -> AfterAttempt:
    """Decide what follows from an attempt.

    Args:
        answer: The result of the request.
        attempt: Number of the attempt, from 1.
        attempts: Attempts in total.
        failures: Failed requests of the endpoint in a row, including this one.

    Returns:
        The verdict of the job, and changes of the delivery and its endpoint.
    """
    error = answer.error or ""
    cause = f"{answer.outcome}: {answer.status}" if answer.status is not None else str(answer.outcome)
    match answer.outcome:
        case WebhookOutcome.DELIVERED:
            return AfterAttempt(Done(), WebhookDeliveryState.DELIVERED)
        case WebhookOutcome.GONE:
            why = "it answered 410 Gone"
            return AfterAttempt(Defer(cause=why, delay_ms=DISABLED_DELAY_MS), disable_for=why)
        case WebhookOutcome.THROTTLED:
            # The endpoint works and names a time: no attempt is used, and no other event is sent before it.
            pause_ms = round((answer.retry_after_s or 1.0) * 1000)
            return AfterAttempt(Defer(cause=cause, delay_ms=pause_ms, error=error), pause_ms=pause_ms)
        case _:
            state = WebhookDeliveryState.DEAD if attempt >= attempts else None
            excess = failures - FAILURES_IN_A_ROW
            pause_ms = min(1_000 * 2 ** min(excess, 20), MAX_PAUSE_MS) if excess >= 0 else 0
            return AfterAttempt(Retry(cause=cause, error=error), state, pause_ms)


class WebhookHandler:
    """Handles jobs of `webhook:out`."""

    def __init__(
        self,
        *,
        engine: sa.Engine,
        queue: Queue,
        clock: Clock,
        endpoints: Mapping[str, WebhookTarget],
        attempts: int,
        count: CountAttempt | None = None,
    ) -> None:
        """Store the dependencies.

        Args:
            engine: The ledger's database.
            queue: The queue, whose gates are paused.
            clock: The time.
            endpoints: Endpoints of the settings, by name.
            attempts: Attempts in total, after which the queue makes a job a dead letter.
            count: Counts attempts.
        """
        self._engine = engine
        self._queue = queue
        self._clock = clock
        self._endpoints = endpoints
        self._attempts = attempts
        self._count = count
        self._log = AttemptLog(engine, clock)
        self._prepared: dict[int, _Prepared] = {}
        self._failures: Counter[str] = Counter()

    async def aclose(self) -> None:
        """Stop writing."""
        await self._log.aclose()

    async def prepare(self, jobs: Sequence[ClaimedJob]) -> Mapping[str, Verdict]:
        """Read the deliveries and events of one claim. Jobs that need no request get their verdict here."""
        ids = {job.id: decode_job(job.payload).delivery for job in jobs}
        return await asyncio.to_thread(self._load, ids)

    def _load(self, ids: Mapping[str, int]) -> Mapping[str, Verdict]:
        with read(self._engine) as connection:
            deliveries = deliveries_by_id(connection, sorted(set(ids.values())))
            events = published_events(connection, sorted({delivery.event_id for delivery, _ in deliveries.values()}))
            states = endpoint_states(connection)
        verdicts: dict[str, Verdict] = {}
        cancelled: list[int] = []
        for job, number in ids.items():
            delivery, state = deliveries.get(number, (None, None))
            if delivery is None or state in (WebhookDeliveryState.DELIVERED, WebhookDeliveryState.CANCELLED):
                verdicts[job] = Done()
                continue
            stored, event = states.get(delivery.endpoint), events.get(delivery.event_id)
            if delivery.endpoint not in self._endpoints or event is None:
                gone = "the event was deleted" if event is None else "the settings do not name the endpoint"
                verdicts[job] = Cancel(cause=gone)
                cancelled.append(number)
            elif stored is not None and stored.disabled_at is not None:
                verdicts[job] = Defer(cause="the endpoint is disabled", delay_ms=DISABLED_DELAY_MS, untried=True)
            else:
                self._prepared[number] = _Prepared(delivery, event)
        if cancelled:
            with write(self._engine) as connection:
                settle_deliveries(connection, sorted(cancelled), WebhookDeliveryState.CANCELLED, self._clock.now())
        return verdicts

    async def __call__(self, lease: Lease) -> Verdict:
        """Send one event. It needs no mark: a receiver recognises a repetition by its id."""
        number = decode_job(lease.job.payload).delivery
        prepared = self._prepared.pop(number, None)
        if prepared is None:
            return Defer(cause="it was not prepared", untried=True)
        delivery, event = prepared
        name = delivery.endpoint
        endpoint = self._endpoints[name]
        body = encode_body(body_of(event))
        answer = await endpoint.client.post(body, endpoint.signer.headers(delivery.message_id, self._clock.now(), body))
        self._failures[name] = self._failures[name] + 1 if _is_down(answer) else 0
        attempt = lease.job.attempt
        after = decide(answer, attempt=attempt, attempts=self._attempts, failures=self._failures[name])
        await self._log.record(
            AttemptResult(number, _logged(name, event, attempt, answer), after.state, after.disable_for)
        )
        if self._count is not None:
            self._count(name, answer.outcome, answer.duration_ms / 1000)
        await self._hold(name, after)
        return after.verdict

    async def _hold(self, name: str, after: AfterAttempt) -> None:
        """Pause the endpoint, so that its other jobs wait as well."""
        if after.disable_for is not None:
            log.warning("webhook endpoint %s is disabled: %s", name, after.disable_for)
            await self._queue.pause_group(gate_of(name))
        elif after.pause_ms:
            await self._queue.pause_gate_for(gate_of(name), after.pause_ms)


def _is_down(answer: WebhookAnswer) -> bool:
    """Whether an attempt shows that the endpoint as a whole does not work."""
    return answer.outcome in _OF_ENDPOINT or (answer.status is not None and answer.status >= 500)


def _logged(endpoint: str, event: PublishedEvent, attempt: int, answer: WebhookAnswer) -> LoggedAttempt:
    return LoggedAttempt(
        endpoint=endpoint,
        message_id=event.message_id,
        type=event.type,
        attempt=attempt,
        at=answer.at,
        duration_ms=answer.duration_ms,
        outcome=answer.outcome,
        status=answer.status,
        error=answer.error,
    )
