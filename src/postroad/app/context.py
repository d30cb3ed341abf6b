"""Opens the real parts that the settings name: database, queues, keys. Embedded ones where none is named."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import sqlalchemy as sa
from pydantic import SecretStr

from postroad.clock import Clock, SystemClock
from postroad.errors import UnavailableError
from postroad.mail.address_hash import AddressHashes
from postroad.mail.token import TokenSigner
from postroad.secret_file import read_or_make_secret, read_secret
from postroad.settings import QueueSettings, Settings
from postroad.settings.queues import RETENTION
from postroad.state_folder import close_state_folder
from postroad.store import migrate
from postroad.store.engine import open_engine, sqlite_url

if TYPE_CHECKING:
    from postroad.campaign.holidays import HolidayCalendar
    from postroad.delivery.metrics import DeliveryMetrics
    from postroad.delivery.provider_lookup import Providers
    from postroad.delivery.recorder import Recorder
    from postroad.delivery.submit import SubmitOptions
    from postroad.dns.resolver import Resolver
    from postroad.gates.controller import GateController
    from postroad.queue import Queue
    from postroad.queue.metrics import QueueMetrics
    from postroad.shaping.config import Shaping

# A part is imported when it is opened: what needs only the database does not wait for DNS and Redis.

_KEY_FILE = "secret.key"


class Role(StrEnum):
    """What a process of ours does. `postroad processes` shows it."""

    WORKER = "worker"
    RECORDER = "recorder"
    INBOUND = "inbound"
    BOUNCE_WATCH = "bounce-watch"
    WEB = "web"
    CONSOLE = "console"


class AppContext:
    """The open parts that commands, flows and rehearsals work with."""

    def __init__(
        self,
        settings: Settings,
        engine: sa.Engine,
        clock: Clock | None,
        stack: AsyncExitStack,
        metrics: QueueMetrics | None = None,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.clock: Clock = clock or SystemClock()
        self.metrics = metrics
        ring = secret_keys(settings)
        self.signer = TokenSigner(*ring)
        self.hash_of = AddressHashes(*ring)
        self._stack = stack
        self._queues: dict[str, Queue] = {}
        # Without a clock of our own the queue goes by its server's, the one that workers on all hosts share.
        self._queue_clock = clock
        self._resolver: Resolver | None = None
        self.launching = asyncio.Lock()
        """Held while a run is started, so that two requests do not start two runs of one campaign."""

    @cached_property
    def shaping(self) -> Shaping:
        """The shaping that the settings name, read once. Raises ConfigError with file, line and field."""
        from postroad.shaping.config import read_shaping

        return read_shaping(self.settings.delivery.shaping)

    @cached_property
    def calendar(self) -> HolidayCalendar:
        """The days on which campaigns with holidays send no mail."""
        from postroad.campaign.holidays import HolidayCalendar

        return HolidayCalendar(self.settings.calendar)

    @cached_property
    def submit_options(self) -> SubmitOptions:
        """How the settings have jobs made. `submit` adds the lookup of unknown domains."""
        from postroad.delivery.submit import SubmitOptions
        from postroad.warmup.identity import identities_by_sender

        delivery = self.settings.delivery
        return SubmitOptions(
            expire_ms=delivery.expire_ms,
            horizon_ms=delivery.horizon_ms,
            warming=identities_by_sender(self.settings),
            shaping=self.shaping,
        )

    async def resolver(self) -> Resolver:
        """Return the resolver of this process, opened once."""
        from postroad.dns.resolver import Resolver

        if self._resolver is None:
            self._resolver = await self._stack.enter_async_context(Resolver(self.settings.dns, self.clock))
        return self._resolver

    async def providers(self) -> Providers:
        """Return the lookup of the mailbox providers of domains."""
        from postroad.delivery.provider_lookup import Providers

        return Providers(await self.resolver(), self.engine, self.clock)

    async def queue(self, name: str) -> Queue:
        """Return the queue of this name, opened once. Raises UnavailableError, or StateError for an unsafe server."""
        from postroad.queue import Queue, QueueOptions, Retention, RetryPolicy

        if name not in self._queues:
            url = await asyncio.to_thread(redis_url, self.settings)
            limits = self.settings.queue(name)
            retry = RetryPolicy(attempts=limits.attempts, delays_ms=limits.retry_delays_ms, jitter=limits.jitter)
            retention = Retention(**RETENTION.get(name, {}))
            self._queues[name] = await self._stack.enter_async_context(
                Queue.open(
                    url,
                    name,
                    options=QueueOptions(
                        retry=retry,
                        retention=retention,
                        durable=self.settings.redis_durable,
                        sync_replicas=limits.sync_replicas,
                    ),
                    clock=self._queue_clock,
                    metrics=self.metrics,
                )
            )
        return self._queues[name]

    async def running_queue(self, name: str) -> Queue:
        """Return a queue as `queue` does, without starting the embedded server.

        Raises:
            UnavailableError: The queue's server does not run or does not reply.
        """
        from postroad.embedded import redis_running

        if self.settings.redis_url is None and not await asyncio.to_thread(redis_running, self.settings.state_dir):
            raise UnavailableError(
                "the queue's server is not running", remedy="Start a worker, or everything with `postroad up`."
            )
        return await self.queue(name)

    def gates(
        self, queue: Queue, limits: QueueSettings | None = None, *, starting: bool = False, releasing: bool = False
    ) -> GateController:
        """Return the controller of a mail queue's gates, with every source of limits.

        Args:
            queue: The queue.
            limits: Settings of the queue. None: as postroad.toml has them.
            starting: A worker starts, see `SettingsLimits`.
            releasing: The senders' DNS was checked, see `DnsHolds`.
        """
        from postroad.gates.controller import GateController
        from postroad.gates.settings_limits import SettingsLimits, gates_of
        from postroad.senders.dns_health import DnsHolds
        from postroad.shaping.config import shaped_senders
        from postroad.shaping.gate_source import ShapingLimits
        from postroad.warmup.caps import WarmupCaps

        settings = self.settings
        return GateController(
            self.engine,
            queue,
            [
                SettingsLimits(gates_of(settings, limits or settings.queue(queue.name)), starting=starting),
                WarmupCaps(settings, engine=self.engine, queue=queue.name, clock=self.clock),
                DnsHolds(self.engine, releasing=releasing),
            ],
            expiring=ShapingLimits(self.engine, self.shaping, shaped_senders(settings), self.clock),
        )

    def recorder(self, queue: Queue, name: str, metrics: DeliveryMetrics | None = None) -> Recorder:
        """Return a recorder of a queue's events.

        Args:
            queue: A queue of mail.
            name: Unique among the recorders that run. One that takes the name of another continues its work.
            metrics: Counts what is recorded.
        """
        from postroad.delivery.recorder import Recorder

        return Recorder(
            engine=self.engine,
            queue=queue,
            clock=self.clock,
            name=name,
            bounce=self.settings.bounce,
            metrics=metrics,
        )

    async def forget_shards(self, name: str) -> None:
        """Make a queue that an earlier version split into shards open as an empty one. Raises UnavailableError."""
        from postroad.queue import forget_shards

        await forget_shards(await asyncio.to_thread(redis_url, self.settings), name)


@asynccontextmanager
async def open_context(
    settings: Settings | None = None,
    clock: Clock | None = None,
    metrics: QueueMetrics | None = None,
    *,
    engine: sa.Engine | None = None,
) -> AsyncIterator[AppContext]:
    """Open the parts. The embedded database is brought up to date; any other must be: `postroad db upgrade`.

    ``clock``: everything goes by it, the queue included, so all processes must share it. None: the machine's.
    ``engine``: disposed of at the end, and not looked at, so that the queue opens while the database is unavailable.
    """
    settings = settings or Settings.load()
    await asyncio.to_thread(close_state_folder, settings.state_dir)
    opened = engine if engine is not None else await asyncio.to_thread(ready_engine, settings)
    try:
        async with AsyncExitStack() as stack:
            yield AppContext(settings, opened, clock, stack, metrics)
    finally:
        opened.dispose()


def database_url(settings: Settings) -> str:
    """Return the named database, else the embedded one."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return sqlite_url(settings.state_dir)


def redis_url(settings: Settings) -> str:
    """Return the named server, else the embedded one, which is started where it does not run."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    from postroad.embedded import ensure_redis

    return ensure_redis(settings.state_dir)


def ready_engine(settings: Settings) -> sa.Engine:
    """Open an engine on a database with the schema of this version. Raises ConfigError, UnavailableError."""
    engine = open_engine(database_url(settings))
    try:
        if settings.database_url is None:
            _upgrade_embedded(settings, engine)
        migrate.require_current(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _upgrade_embedded(settings: Settings, engine: sa.Engine) -> None:
    if migrate.current_revision(engine) == migrate.newest_revision():
        return
    with (settings.state_dir / "database.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # Processes that start together must not all make the tables.
        migrate.upgrade(engine)


def secret_keys(settings: Settings) -> tuple[SecretStr, ...]:
    """Return the ring of keys, of which the first signs tokens and all verify.

    It is as set, else one key that is made once and kept in the state folder, for its owner only.
    """
    return known_secret_keys(settings) or (SecretStr(read_or_make_secret(settings.state_dir / _KEY_FILE)),)


def known_secret_keys(settings: Settings) -> tuple[SecretStr, ...]:
    """Return the ring of keys; it is empty where no key is set, and none was made yet."""
    last = (settings.secret_key,) if settings.secret_key else ()
    if ring := tuple(dict.fromkeys((*settings.secret_keys, *last))):
        return ring
    key = generated_key(settings)
    return () if key is None else (SecretStr(key),)


def generated_key(settings: Settings) -> str | None:
    """Return the key in the state folder; None if another is set, or none was made yet."""
    is_set = settings.secret_key or settings.secret_keys
    return None if is_set else read_secret(settings.state_dir / _KEY_FILE)
