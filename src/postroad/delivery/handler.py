"""Delivers one touch: merges its message, sends it, and classifies what the server replied."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Self, assert_never

from msgspec.structs import replace

from postroad.campaign.message import StepMessage
from postroad.classify.cause import Cause
from postroad.classify.statement import Speaker
from postroad.clock import Clock
from postroad.delivery.compiled_steps import CompiledSteps
from postroad.delivery.job import SendJob, decode_job
from postroad.delivery.outcome import (
    NoMailHostError,
    classify_reply,
    classify_transport_error,
    classify_unreachable,
)
from postroad.delivery.refusals import AuthenticationRefusals, receiver_name
from postroad.delivery.result import DeliveryResult, DeliveryVerdict, Pause, encode_result
from postroad.delivery.routes import Route
from postroad.delivery.signing import SigningPool
from postroad.dns.providers import OTHER_PROVIDERS, provider_table
from postroad.errors import Blame, ConfigError, DataError
from postroad.gates.name import GateName
from postroad.mail.message import Message
from postroad.queue import FOREVER_MS, Dead, Defer, Done, Lease, LeaseLostError, Queue, Retry, Uncertain, Verdict
from postroad.shaping.limits import LimitScope
from postroad.shaping.shaper import Shaper
from postroad.smtp.endpoint import ANYWHERE, LocalBinding
from postroad.smtp.errors import TransportError, UnsendableError
from postroad.smtp.reply import Reply
from postroad.store.ledger import TouchState

log = logging.getLogger(__name__)

ROUTE_PAUSE_MS = (5_000, 10_000, 20_000, 60_000, 300_000)
"""Pause of a route after its first, second, … failure in a row to connect; the last repeats."""

SENDER_PAUSE_MS = 3_600_000
"""Pause of a sender at a provider that refuses it by policy."""


class SendHandler:
    """Handles the jobs of a mail queue."""

    def __init__(
        self,
        *,
        steps: CompiledSteps,
        queue: Queue,
        routes: Mapping[str, Route],
        origins: Mapping[str, LocalBinding],
        clock: Clock,
        shaper: Shaper,
    ) -> None:
        """Set up the handler.

        Args:
            steps: Compiles the messages.
            queue: The queue of the jobs, for late results and for pauses of gates.
            routes: Routes by name.
            origins: Local address and EHLO name by the address of the sender.
            clock: Tells the time.
            shaper: Adapts the rate to the replies.
        """
        self._compiled = steps
        self._queue = queue
        self._routes = routes
        self._origins = origins
        self._clock = clock
        self._shaper = shaper
        self._signing = SigningPool()
        self._refusals = AuthenticationRefusals()
        self.counts: Counter[TouchState] = Counter()
        """Results of the messages that this process tried."""
        self._route_backoff: dict[str, tuple[int, int]] = {}  # by route: failures in a row, and the end of its pause

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._signing.aclose()

    async def __call__(self, lease: Lease) -> Verdict:
        """Deliver one job, whose touch is ``sending``.

        Args:
            lease: The claimed job.

        Returns:
            The verdict for the queue.

        Raises:
            LeaseLostError: The queue gave the job to another worker before the message was sent.
        """
        job = decode_job(lease.job.payload)
        try:
            step = await self._compiled.get(job.step_id, job.sender_id, job.version, job.variant)
            step = await self._compiled.with_files(step, job.files)
            message = step.message.merge(job.touch_id, job.address, job.fields, self._clock.now())
            if message.pending_signatures:
                message = await self._signing.signed(message)
        except (ConfigError, DataError) as error:
            return self._verdict(_dead("template", Blame.MESSAGE, str(error)))
        route = self._routes.get(step.route)
        if route is None:
            return self._verdict(_dead("no such route", Blame.US, f"route {step.route} is not in postroad.toml"))
        result, reply = await self._send(lease, job, step, route, message)
        result = self._escalate(result, step.sender, receiver_name(job))
        scope = LimitScope(sender=step.sender, receiver=job.receiver)
        if result.state is TouchState.ACCEPTED:
            self._shaper.accepted(scope)
        elif reply is not None:
            self._shaper.refused(scope, reply)
        if result.pause is None:
            self._route_backoff.pop(step.route, None)
        else:
            await self._pause_gate(step, scope, result)
        return self._verdict(result)

    async def _send(
        self, lease: Lease, job: SendJob, step: StepMessage, route: Route, message: Message
    ) -> tuple[DeliveryResult, Reply | None]:
        """Send a message. Returns the result, and the reply that refused or accepted it, if a server replied."""
        deferrals = lease.job.claim - lease.job.attempt
        try:
            reply = await route.send(message, lease.mark, self._origins.get(step.sender, ANYWHERE))
        except TransportError as error:
            return classify_transport_error(error), error.reply
        except NoMailHostError as error:
            return classify_unreachable(error, deferrals=deferrals), error.reply
        except LeaseLostError:
            # The job was not sent, and the ledger must not assume that it was.
            result = DeliveryResult(state=TouchState.QUEUED, cause="lease lost before the wire")
            await self._queue.record_late_outcome(lease.job.id, lease.job.token, encode_result(result))
            raise
        except UnsendableError as error:
            return _dead("unsendable", error.blame, error.reason), None
        result = classify_reply(
            reply,
            deferrals=deferrals,
            speaker=Speaker.RELAY if route.is_relay else Speaker.RECEIVER,
            provider=job.provider if job.provider in provider_table().names else "",
            recipient=job.address,
            senders=(step.sender, message.return_path),
            receiver=f"relay {step.route}" if route.is_relay else receiver_name(job),
        )
        return result, reply

    def _escalate(self, result: DeliveryResult, sender: str, receiver: str) -> DeliveryResult:
        """Pause the sender everywhere if this receiver is one of several that refuse its authentication."""
        if result.cause != Cause.SENDER_AUTHENTICATION or result.pause is not Pause.SENDER_AT_PROVIDER:
            return result
        agreed = self._refusals.add(sender, receiver, self._clock.now_ms())
        return replace(result, pause=Pause.SENDER) if agreed else result

    async def _pause_gate(self, step: StepMessage, scope: LimitScope, result: DeliveryResult) -> None:
        """Pause the gate of the messages that would be refused for the same cause."""
        now_ms = self._clock.now_ms()
        match result.pause:
            case None:
                return
            case Pause.ROUTE:
                failures, until_ms = self._route_backoff.get(step.route, (0, 0))
                if now_ms < until_ms:
                    return  # Concurrent failures are one failure of the route.
                until_ms = now_ms + ROUTE_PAUSE_MS[min(failures, len(ROUTE_PAUSE_MS) - 1)]
                self._route_backoff[step.route] = (failures + 1, until_ms)
                gate = str(GateName.route(step.route))
            case Pause.SENDER:
                gate, until_ms = str(GateName.sender(step.sender)), FOREVER_MS
            case Pause.SENDER_AT_PROVIDER if scope.rule_provider == OTHER_PROVIDERS:
                return  # One of many small hosts. If several refuse, a rule of the shaping acts.
            case Pause.SENDER_AT_PROVIDER:
                gate = scope.gate
                until_ms = now_ms + SENDER_PAUSE_MS
            case other:
                assert_never(other)
        until = None if until_ms == FOREVER_MS else until_ms
        how_long = "until it is resumed" if until is None else f"for {(until_ms - now_ms) / 1000:g} s"
        log.warning(
            "gate %s is paused %s: %s (%s)%s", gate, how_long, result.cause, result.reply, _remedy(result, gate)
        )
        if until is None:
            await self._queue.pause_gate(gate, None)
        else:
            await self._queue.pause_gate_for(gate, until_ms - now_ms)
        if result.pause is not Pause.ROUTE:
            everywhere = result.pause is Pause.SENDER
            self._shaper.paused(gate, scope, result.reply, cause=result.cause, everywhere=everywhere, until_ms=until)

    def _verdict(self, result: DeliveryResult) -> Verdict:
        self.counts[result.state] += 1
        note, cause, error = encode_result(result), result.cause, result.reply
        match verdict := result.verdict:
            case DeliveryVerdict.ACCEPTED:
                return Done(note=note)
            case DeliveryVerdict.RETRY:
                return Retry(cause=cause, error=error, note=note)
            case DeliveryVerdict.DEFER:
                return Defer(delay_ms=result.delay_ms or 0, cause=cause, error=error, note=note)
            case DeliveryVerdict.BOUNCED | DeliveryVerdict.DEAD:
                return Dead(cause=cause, error=error, note=note)
            case DeliveryVerdict.UNKNOWN:
                return Uncertain(cause=cause, note=note)
            case _:
                assert_never(verdict)


def _dead(cause: str, blame: Blame, reason: str) -> DeliveryResult:
    return DeliveryResult(state=TouchState.DEAD, cause=cause, blame=blame, reply=reason)


def _remedy(result: DeliveryResult, gate: str) -> str:
    """Return what an operator should do about a pause that does not end by itself."""
    if result.state is not TouchState.DEFERRED or result.pause is not Pause.SENDER:
        return ""
    return f". Put the sender in order at the relay, then run: postroad queue gate resume {gate}"
