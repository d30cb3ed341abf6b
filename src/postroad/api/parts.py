"""What the routes of the API work with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastapi import Request

from postroad.api.cursor import Cursors
from postroad.api.limits import ApiLimits
from postroad.app.context import AppContext, secret_keys
from postroad.app.message_desk import MessageDesk
from postroad.store.event_stream import EventHorizon
from postroad.web.rate_limit import Network, client_address


@dataclass(frozen=True, kw_only=True)
class ApiParts:
    """Dependencies of the routes.

    Attributes:
        context: Settings, database, queues, clock.
        desk: Accepts requests for messages.
        limits: Limits the requests of each key.
        cursors: Signs and verifies cursors.
        trusted_proxies: Networks whose X-Forwarded-For is trusted.
        horizon: Finds the delivery events whose order is final.
    """

    context: AppContext
    desk: MessageDesk
    limits: ApiLimits
    cursors: Cursors
    trusted_proxies: tuple[Network, ...] = ()
    horizon: EventHorizon = field(default_factory=EventHorizon)
    _finding: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def of(cls, context: AppContext, trusted_proxies: tuple[Network, ...] = ()) -> ApiParts:
        """Return the dependencies that a context has."""
        return cls(
            context=context,
            desk=MessageDesk(context),
            limits=ApiLimits(context.settings.api, context.clock),
            cursors=Cursors(*secret_keys(context.settings)),
            trusted_proxies=trusted_proxies,
        )

    async def find_horizon(self) -> int:
        """Return the last delivery event before which none can appear any more. Raises UnavailableError."""
        async with self._finding:
            return await asyncio.to_thread(self.horizon.find, self.context.engine)

    def client_of(self, request: Request) -> str:
        """Return the client address of a request."""
        peer = request.client.host if request.client is not None else "unknown"
        return client_address(peer, ",".join(request.headers.getlist("x-forwarded-for")), self.trusted_proxies)
