"""A route by relays: chosen by weight, and when one cannot be had, the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import NamedTuple

from postroad.smtp.breaker import Breaker
from postroad.smtp.endpoint import ANYWHERE, Endpoint, LocalBinding
from postroad.smtp.pools import Pools
from postroad.smtp.reply import Phase, Reply
from postroad.smtp.session import Sendable, TransportError


class Relay(NamedTuple):
    """One relay of a route, its share of the mail, and whether it is to be used."""

    endpoint: Endpoint
    weight: int
    breaker: Breaker


class RelayRoute:
    """Sends by any of its relays. It is down only when all of them are."""

    is_relay = True

    def __init__(self, relays: Sequence[Relay], pools: Pools, rng: Random) -> None:
        self.relays = relays
        self._pools = pools
        self._rng = rng
        self._endpoints: dict[tuple[Endpoint, LocalBinding], Endpoint] = {}  # as each origin sees them

    @property
    def breakers(self) -> Sequence[Breaker]:
        return [relay.breaker for relay in self.relays]

    async def send(
        self, message: Sendable, before_body: Callable[[], Awaitable[None]], origin: LocalBinding = ANYWHERE
    ) -> Reply:
        """One transaction by some relay. Raises TransportError: at `connect` when none can be had. See Session.send."""
        left = list(self.relays)
        failure: TransportError | None = None
        while (relay := self._choose(left)) is not None:
            left.remove(relay)
            relay.breaker.begin()
            try:
                return await self._send_by(relay, message, before_body, origin)
            except TransportError as error:
                # Behind RCPT it is not tried elsewhere: whoever settles it decides that.
                if not error.before_mail:
                    raise
                failure = error
        raise failure or self._all_rest()

    def _choose(self, left: Sequence[Relay]) -> Relay | None:
        admitting = [relay for relay in left if relay.breaker.admits]
        if len(admitting) <= 1:
            return admitting[0] if admitting else None
        return self._rng.choices(admitting, [relay.weight for relay in admitting])[0]

    async def _send_by(
        self, relay: Relay, message: Sendable, before_body: Callable[[], Awaitable[None]], origin: LocalBinding
    ) -> Reply:
        breaker = relay.breaker
        try:
            reply = await self._pools.of(self._seen_from(origin, relay)).send(message, before_body)
        except TransportError as error:
            if error.before_mail or error.late_s is not None:
                breaker.failed(str(error))
            else:
                breaker.succeeded()  # It is there. What became of this message is another matter.
            raise
        except BaseException:
            breaker.gave_up()
            raise
        breaker.succeeded()
        return reply

    def _seen_from(self, origin: LocalBinding, relay: Relay) -> Endpoint:
        if origin.source_address is None and origin.helo is None:
            return relay.endpoint
        key = (relay.endpoint, origin)
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            endpoint = self._endpoints[key] = relay.endpoint.sent_from(origin)
        return endpoint

    def _all_rest(self) -> TransportError:
        names = ", ".join(breaker.name for breaker in self.breakers)
        return TransportError(Phase.CONNECT, f"all relays are left alone for now: {names}")
