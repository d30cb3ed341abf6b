"""A route of several relays: one is chosen by weight, and if it cannot be reached, another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import NamedTuple

from postroad.smtp.breaker import Breaker
from postroad.smtp.endpoint import ANYWHERE, Endpoint, LocalBinding
from postroad.smtp.errors import TransportError
from postroad.smtp.pools import Pools
from postroad.smtp.reply import Phase, Reply
from postroad.smtp.session import Sendable


class Relay(NamedTuple):
    """One relay of a route, with its share of the mail and its circuit breaker."""

    endpoint: Endpoint
    weight: int
    breaker: Breaker


class RelayRoute:
    """Sends through any of its relays. The route is down only when all relays are."""

    is_relay = True

    def __init__(self, relays: Sequence[Relay], pools: Pools, rng: Random) -> None:
        self.relays = relays
        self._pools = pools
        self._rng = rng
        self._endpoints: dict[tuple[Endpoint, LocalBinding], Endpoint] = {}  # by relay and origin

    @property
    def breakers(self) -> Sequence[Breaker]:
        return [relay.breaker for relay in self.relays]

    async def send(
        self, message: Sendable, before_body: Callable[[], Awaitable[None]], origin: LocalBinding = ANYWHERE
    ) -> Reply:
        """Send a message through one relay, trying others while none has accepted any part of it.

        Args:
            message: Envelope and content.
            before_body: Awaited just before the body is written. See `SmtpSession.deliver`.
            origin: The source address and EHLO name to use.

        Returns:
            The reply that decided the transaction.

        Raises:
            TransportError: No relay could be reached (phase `connect` if all breakers are open), or the connection
                was lost.
        """
        untried = list(self.relays)
        failure: TransportError | None = None
        while (relay := self._choose(untried)) is not None:
            untried.remove(relay)
            if not relay.breaker.allow():
                continue
            try:
                return await self._send_by(relay, message, before_body, origin)
            except TransportError as error:
                # After MAIL was accepted, no other relay is tried here: the caller decides on a retry.
                if not error.before_mail:
                    raise
                failure = error
        raise failure or self._all_open_error()

    def _choose(self, untried: Sequence[Relay]) -> Relay | None:
        admitting = [relay for relay in untried if relay.breaker.admits]
        if len(admitting) <= 1:
            return admitting[0] if admitting else None
        return self._rng.choices(admitting, [relay.weight for relay in admitting])[0]

    async def _send_by(
        self, relay: Relay, message: Sendable, before_body: Callable[[], Awaitable[None]], origin: LocalBinding
    ) -> Reply:
        breaker = relay.breaker
        try:
            reply = await self._pools.of(self._endpoint(origin, relay)).send(message, before_body)
        except TransportError as error:
            if error.before_mail or error.late_s is not None:
                breaker.failed(str(error))
            else:
                breaker.succeeded()  # The relay answers, whatever happened to this message.
            raise
        except BaseException:
            breaker.release()
            raise
        breaker.succeeded()
        return reply

    def _endpoint(self, origin: LocalBinding, relay: Relay) -> Endpoint:
        if origin.source_address is None and origin.helo is None:
            return relay.endpoint
        key = (relay.endpoint, origin)
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            endpoint = self._endpoints[key] = relay.endpoint.sent_from(origin)
        return endpoint

    def _all_open_error(self) -> TransportError:
        names = ", ".join(breaker.name for breaker in self.breakers)
        return TransportError(Phase.CONNECT, f"all relays failed and are not used for now: {names}")
