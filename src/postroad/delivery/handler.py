"""Deliver one touch: merge, mark, send, judge."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self, assert_never

import sqlalchemy as sa

from postroad.campaign.message import StepMessage, step_message
from postroad.classify.cause import Cause
from postroad.classify.statement import Speaker
from postroad.clock import Clock
from postroad.delivery.job import DeliveryResult, decode_job, encode_note
from postroad.delivery.outcome import (
    SENDER_PAUSE_MS,
    DeliveryVerdict,
    NoMailHostError,
    Outcome,
    Pause,
    of_obstacle,
    of_reply,
    of_transport,
)
from postroad.delivery.refusals import AuthenticationRefusals, receiver_named
from postroad.delivery.routes import Route
from postroad.delivery.signing import SigningPool
from postroad.dns.providers import OTHER_PROVIDERS, provider_table
from postroad.errors import Blame, ConfigError, DataError
from postroad.gates.name import GateName
from postroad.mail.dkim import DkimSigner
from postroad.mail.token import TokenSigner
from postroad.queue import FOREVER_MS, Dead, Defer, Done, Lease, LeaseLostError, Queue, Retry, Uncertain
from postroad.queue import Verdict as QueueVerdict
from postroad.settings import Service
from postroad.shaping.limits import LimitScope
from postroad.shaping.shaper import Shaper
from postroad.smtp.endpoint import ANYWHERE, LocalBinding
from postroad.smtp.reply import Reply
from postroad.smtp.session import TransportError, UnsendableError
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from postroad.store.same_words import words_key

log = logging.getLogger(__name__)

ROUTE_PAUSE_MS = (5_000, 10_000, 20_000, 60_000, 300_000)
"""How long a route rests after its first, second, … failure in a row to connect; the last repeats."""

FAILED_STEP_MS = 60_000
"""How long the error of a step that could not be compiled is the answer for all its jobs."""


class SendHandler:
    """Handles jobs of ``email:send``. ``origins``: by sender's address, where its mail comes from."""

    def __init__(
        self,
        *,
        engine: sa.Engine,
        queue: Queue,
        routes: Mapping[str, Route],
        origins: Mapping[str, LocalBinding],
        signer: TokenSigner,
        public_url: str,
        clock: Clock,
        shaper: Shaper,
        dkim: Mapping[str, DkimSigner] | None = None,
        services: Mapping[str, Service] | None = None,
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._routes = routes
        self._origins = origins
        self._signer = signer
        self._public_url = public_url
        self._clock = clock
        self._shaper = shaper
        self._dkim = dkim or {}  # by the name of the sender
        self._services = services or {}  # by the name of the route
        self._signing = SigningPool()
        self._refusals = AuthenticationRefusals()
        self.counts: Counter[TouchState] = Counter()
        """What became of the messages that this process tried."""
        self._steps: dict[tuple[int, int], asyncio.Task[StepMessage]] = {}
        self._failed_until_ms: dict[tuple[int, int], int] = {}  # by step and sender: when a failed one is tried again
        self._rests: dict[str, tuple[int, int]] = {}  # route: failures in a row, and the end of its pause

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._signing.aclose()

    async def __call__(self, lease: Lease) -> QueueVerdict:
        """Deliver one job; its touch is ``sending`` already. Every way that it can end is a verdict."""
        claimed = lease.job
        job = decode_job(claimed.payload)
        try:
            step = await self._step(job.step_id, job.sender_id)
            message = step.message.merge(job.touch_id, job.address, job.fields, self._clock.now())
            if message.unsigned:
                message = await self._signing.signed(message)
        except (ConfigError, DataError) as error:
            outcome = Outcome(verdict=DeliveryVerdict.DEAD, cause="template", blame=Blame.MESSAGE)
            return self._verdict(outcome, str(error))
        route = self._routes.get(step.route)
        if route is None:
            outcome = Outcome(verdict=DeliveryVerdict.DEAD, cause="no such route", blame=Blame.US)
            return self._verdict(outcome, f"route {step.route} is not in postroad.toml")
        reply: Reply | None = None
        deferrals = claimed.claim - claimed.attempt
        try:
            reply = await route.send(message, lease.mark, self._origins.get(step.sender, ANYWHERE))
            outcome = of_reply(
                reply,
                deferrals=deferrals,
                speaker=Speaker.RELAY if route.is_relay else Speaker.RECEIVER,
                provider=job.provider if job.provider in provider_table().names else "",
                recipient=job.address,
                senders=(step.sender, message.return_path),
            )
            said = str(reply)
        except TransportError as error:
            reply, said = error.reply, error.reason
            outcome = of_transport(error)
        except NoMailHostError as error:
            reply, said = error.reply, error.reason
            outcome = of_obstacle(error.obstacle, deferrals=deferrals)
        except LeaseLostError:
            # The queue gave the job away, or was emptied, before anything was sent; the ledger must not think it was.
            note = DeliveryResult(state=TouchState.QUEUED, cause="lease lost before the wire")
            await self._queue.record_late_outcome(claimed.id, claimed.token, encode_note(note))
            raise
        except UnsendableError as error:
            outcome, said = Outcome(verdict=DeliveryVerdict.DEAD, cause="unsendable", blame=error.blame), error.reason
        outcome = self._with_others(outcome, step.sender, receiver_named(job))
        scope = LimitScope(sender=step.sender, receiver=job.receiver)
        if outcome.verdict is DeliveryVerdict.ACCEPTED:
            self._shaper.accepted(scope)
        elif reply is not None:
            self._shaper.refused(scope, reply)
        if outcome.pause is None:
            self._rests.pop(step.route, None)
        else:
            await self._hold_back(step, scope, outcome.pause, outcome, said)
        receiver = f"relay {step.route}" if route.is_relay else receiver_named(job)
        return self._verdict(outcome, said, reply, words_key(receiver, outcome.words) if outcome.words else "")

    async def _step(self, step_id: int, sender_id: int) -> StepMessage:
        """Return a step, compiled once for each sender. All jobs that want it meanwhile wait for one compilation.

        Raises:
            ConfigError: The step cannot be compiled. It is tried again after `FAILED_STEP_MS` at the earliest.
        """
        key = step_id, sender_id
        task = self._steps.get(key)
        if task is not None and task.done() and not task.cancelled():
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, ConfigError) or self._clock.now_ms() >= self._failed_until_ms.get(key, 0):
                task = None
        if task is None or task.cancelled():
            task = asyncio.create_task(asyncio.to_thread(self._load_step, step_id, sender_id))
            self._steps[key] = task
            self._failed_until_ms[key] = self._clock.now_ms() + FAILED_STEP_MS
        return await asyncio.shield(task)

    def _load_step(self, step_id: int, sender_id: int) -> StepMessage:
        with read(self._engine) as connection:
            return step_message(
                connection,
                step_id,
                self._signer,
                self._public_url,
                self._dkim,
                self._services,
                sender_id=sender_id or None,
            )

    def _with_others(self, outcome: Outcome, sender: str, receiver: str) -> Outcome:
        """Stop the sender everywhere if this receiver is one of several that refuse its authentication."""
        if outcome.cause != Cause.SENDER_AUTHENTICATION or outcome.pause is not Pause.SENDER_AT_PROVIDER:
            return outcome
        agreed = self._refusals.add(sender, receiver, self._clock.now_ms())
        return replace(outcome, pause=Pause.SENDER) if agreed else outcome

    async def _hold_back(self, step: StepMessage, scope: LimitScope, pause: Pause, outcome: Outcome, said: str) -> None:
        """Pause the gate behind which more of the same would meet the same."""
        now_ms = self._clock.now_ms()
        match pause:
            case Pause.ROUTE:
                failures, until_ms = self._rests.get(step.route, (0, 0))
                if now_ms < until_ms:
                    return  # Others failed beside this one; that is one failure of the route.
                until_ms = now_ms + ROUTE_PAUSE_MS[min(failures, len(ROUTE_PAUSE_MS) - 1)]
                self._rests[step.route] = (failures + 1, until_ms)
                gate = str(GateName.route(step.route))
            case Pause.SENDER:
                gate, until_ms = str(GateName.sender(step.sender)), FOREVER_MS
            case Pause.SENDER_AT_PROVIDER if scope.rule_provider == OTHER_PROVIDERS:
                return  # One of many hosts: when several say so, a rule of the shaping acts.
            case Pause.SENDER_AT_PROVIDER:
                gate = scope.gate
                until_ms = now_ms + SENDER_PAUSE_MS
            case other:
                assert_never(other)
        how_long = "until it is resumed" if until_ms == FOREVER_MS else f"for {(until_ms - now_ms) / 1000:g} s"
        log.warning("gate %s is paused %s: %s (%s)%s", gate, how_long, outcome.cause, said, _what_to_do(outcome, gate))
        if until_ms == FOREVER_MS:
            await self._queue.pause_gate(gate, None)
        else:
            await self._queue.pause_gate_for(gate, until_ms - now_ms)
        if pause is not Pause.ROUTE:
            self._shaper.paused(
                gate,
                scope,
                said,
                cause=outcome.cause,
                everywhere=pause is Pause.SENDER,
                until_ms=None if until_ms == FOREVER_MS else until_ms,
            )

    def _verdict(self, outcome: Outcome, said: str, reply: Reply | None = None, words: str = "") -> QueueVerdict:
        self.counts[_STATES[outcome.verdict]] += 1
        note = encode_note(
            DeliveryResult(
                state=_STATES[outcome.verdict],
                cause=outcome.cause,
                blame=outcome.blame,
                reply_code=reply.code if reply is not None else None,
                enhanced_code=reply.enhanced if reply is not None else None,
                reply=said[:500],
                suppress=outcome.suppress,
                words=words,
            )
        )
        match outcome.verdict:
            case DeliveryVerdict.ACCEPTED:
                return Done(note=note)
            case DeliveryVerdict.RETRY:
                return Retry(cause=outcome.cause, error=said, note=note)
            case DeliveryVerdict.DEFER:
                return Defer(delay_ms=outcome.delay_ms or 0, cause=outcome.cause, error=said, note=note)
            case DeliveryVerdict.BOUNCED | DeliveryVerdict.DEAD:
                return Dead(cause=outcome.cause, error=said, note=note)
            case DeliveryVerdict.UNKNOWN:
                return Uncertain(cause=outcome.cause, note=note)
            case other:
                assert_never(other)


def _what_to_do(outcome: Outcome, gate: str) -> str:
    """Return what a person should do about a pause that no time ends."""
    if outcome.verdict is not DeliveryVerdict.DEFER or outcome.pause is not Pause.SENDER:
        return ""
    return f". Put the sender in order at the relay, then run: postroad queue gate resume {gate}"


_STATES = {
    DeliveryVerdict.ACCEPTED: TouchState.ACCEPTED,
    DeliveryVerdict.RETRY: TouchState.DEFERRED,
    DeliveryVerdict.DEFER: TouchState.DEFERRED,
    DeliveryVerdict.BOUNCED: TouchState.BOUNCED,
    DeliveryVerdict.DEAD: TouchState.DEAD,
    DeliveryVerdict.UNKNOWN: TouchState.UNKNOWN,
}
