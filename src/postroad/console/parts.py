"""What the pages of the console work with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.console.findings import FindingsWatch
from postroad.console.oidc import OidcClient
from postroad.console.passwords import Passwords
from postroad.console.templates import Templates
from postroad.delivery.job import SEND_QUEUE
from postroad.queue import Queue
from postroad.settings import ConsoleSettings, Settings
from postroad.web.rate_limit import Network, RateLimiter


@dataclass(frozen=True, kw_only=True)
class ConsoleParts:
    """Dependencies of the pages.

    Attributes:
        context: Settings, database, queues, clock.
        templates: Renders pages.
        passwords: Hashes and verifies passwords.
        sign_ins: Limits sign-in attempts.
        oidc: Client of the OpenID Connect provider. None: the settings have none.
        findings: The latest results of `postroad doctor`.
        trusted_proxies: Networks whose X-Forwarded-For is trusted.
    """

    context: AppContext
    templates: Templates
    passwords: Passwords
    sign_ins: RateLimiter
    oidc: OidcClient | None
    findings: FindingsWatch
    trusted_proxies: tuple[Network, ...]

    @property
    def settings(self) -> Settings:
        """All settings."""
        return self.context.settings

    @property
    def console(self) -> ConsoleSettings:
        """The settings of the console."""
        return self.context.settings.console

    @property
    def engine(self) -> sa.Engine:
        """The ledger's database."""
        return self.context.engine

    @property
    def zone(self) -> ZoneInfo:
        """Zone in which times are shown."""
        return self.context.settings.zone

    def now(self) -> datetime:
        """Return the time."""
        return self.context.clock.now()

    async def queue(self, name: str = SEND_QUEUE) -> Queue:
        """Return a queue. A page starts no server.

        Raises:
            UnavailableError: The queue's server does not run or does not reply.
        """
        return await self.context.running_queue(name)
