"""The sandbox server: listens, closes idle sessions, and shuts down cleanly."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from postroad.clock import Clock, SystemClock
from postroad.errors import ConfigError, UnavailableError
from postroad.sandbox.accepted_log import AcceptedMessage, accepted
from postroad.sandbox.config import SandboxConfig
from postroad.sandbox.context import Counters, SandboxContext
from postroad.sandbox.personas import PersonaSet
from postroad.sandbox.rulebook import RuleBook
from postroad.sandbox.rules import SandboxRule
from postroad.sandbox.session import HANDSHAKE_S, SandboxSession
from postroad.sandbox.storage import MessageStore

#: Time for sessions to close when the sandbox stops, in seconds.
_GRACE_S = 0.5


class Sandbox:
    """A mail provider on loopback that misbehaves on request. Use as an async context manager.

    ``rng`` is used for the probability of rules and the challenges of CRAM-MD5. ``clock`` is used for delays, rates,
    greylisting, idle timeouts, and the times of stored messages.
    """

    def __init__(self, config: SandboxConfig, *, rng: Random | None = None, clock: Clock | None = None) -> None:
        self.config = config
        self._clock = clock or SystemClock()
        self._rng = rng or Random()  # noqa: S311 - faults need no secret
        self._context: SandboxContext | None = None
        self._sessions: set[SandboxSession] = set()
        self._numbers = itertools.count(1)
        self._servers: list[asyncio.Server] = []
        self._watch: asyncio.Task[None] | None = None
        self._owned = ExitStack()

    async def __aenter__(self) -> Self:
        config = self.config
        tls = _tls_context(config)
        storage = MessageStore(Path(config.directory), config.keep, clock=self._clock, hostname=config.hostname)
        self._owned.enter_context(storage)
        try:
            self._context = SandboxContext(
                config=config,
                clock=self._clock,
                rng=self._rng,
                storage=storage,
                rules=self._book(config.rules),
                personas=self._personas(),
                tls=tls,
            )
            await self._listen(config.port, None)
            if config.tls_port is not None:
                await self._listen(config.tls_port, tls)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        self._watch = asyncio.get_running_loop().create_task(self._watch_idle())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        for session in list(self._sessions):
            session.shut_down()
        await self._sessions_gone(_GRACE_S)
        for session in list(self._sessions):
            session.abort()
        await self._sessions_gone(_GRACE_S)
        self._owned.close()

    @property
    def host(self) -> str:
        return self.config.host

    @property
    def port(self) -> int:
        return _port_of(self._servers[0])

    @property
    def tls_port(self) -> int | None:
        """The port of implicit TLS, if there is one."""
        return _port_of(self._servers[1]) if len(self._servers) > 1 else None

    @property
    def counters(self) -> Counters:
        """The live counters."""
        return self._running.counters

    @property
    def rules(self) -> tuple[SandboxRule, ...]:
        return self._running.rules.rules

    def use(self, rules: Iterable[SandboxRule]) -> None:
        """Replace the rules from the next command on. The new rules start without state."""
        self._running.rules = self._book(rules)

    @property
    def ledger_path(self) -> Path:
        return self._running.storage.log.path

    @property
    def maildir_path(self) -> Path:
        return self._running.storage.maildir

    def accepted(self) -> list[AcceptedMessage]:
        """Read the log of accepted messages."""
        return accepted(self.ledger_path)

    @property
    def _running(self) -> SandboxContext:
        if self._context is None:
            raise RuntimeError("the sandbox is not running: enter it first")
        return self._context

    def _book(self, rules: Iterable[SandboxRule]) -> RuleBook:
        return RuleBook(rules, clock=self._clock, rng=self._rng, address_tags=self.config.address_tags)

    def _personas(self) -> PersonaSet | None:
        config = self.config
        if not config.personas:
            return None
        strict = config.require_authentication
        return PersonaSet(config.personas, clock=self._clock, rng=self._rng, require_authentication=strict)

    async def _listen(self, port: int, tls: ssl.SSLContext | None) -> None:
        context, host = self._running, self.config.host

        def session() -> SandboxSession:
            return SandboxSession(context, self._sessions, next(self._numbers), secure=tls is not None)

        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                session,
                host,
                port,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else HANDSHAKE_S,
                backlog=1024,
            )
        except OSError as error:
            raise UnavailableError(
                f"The sandbox cannot listen on {host}:{port}: {error.strerror}",
                remedy="Choose another port, or 0 for any free port.",
            ) from error
        self._servers.append(server)

    async def _watch_idle(self) -> None:
        limit_ms = self.config.idle_timeout_ms
        while True:
            await self._clock.sleep(limit_ms / 1000 / 10)
            now_ms = self._clock.now_ms()
            for session in list(self._sessions):
                if session.idle_ms(now_ms) >= limit_ms:
                    session.expire()

    async def _sessions_gone(self, within_s: float) -> None:
        if self._sessions:
            await asyncio.wait([session.gone for session in self._sessions], timeout=within_s)


async def serve(
    config: SandboxConfig,
    stop: asyncio.Event,
    *,
    ready: Callable[[int], None] | None = None,
    rng: Random | None = None,
    clock: Clock | None = None,
) -> None:
    """Run a sandbox until ``stop`` is set.

    Args:
        config: The configuration.
        stop: Ends the sandbox.
        ready: Called once with the port on which the sandbox listens.
        rng: Random numbers, see `Sandbox`.
        clock: The clock, see `Sandbox`.

    Raises:
        ConfigError: The certificate cannot be used.
        UnavailableError: The port is in use, or the folder cannot be written.
    """
    async with Sandbox(config, rng=rng, clock=clock) as sandbox:
        if ready is not None:
            ready(sandbox.port)
        await stop.wait()


def _port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


def _tls_context(config: SandboxConfig) -> ssl.SSLContext | None:
    if config.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.certificate, config.private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"The certificate cannot be used: {error}", where=config.certificate) from error
    return context
