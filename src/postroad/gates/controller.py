"""Keeps the gates of a queue equal to the merged limits of all sources, also after a loss of the queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import sqlalchemy as sa

from postroad.gates.plan import Contribution, GateChange, SourceTraits, plan_changes
from postroad.queue import FOREVER_MS, Gate, GateState, Queue
from postroad.store.engine import translate_db_errors, write_connection
from postroad.store.shaping import acquire_lock

log = logging.getLogger(__name__)


class GateSource(Protocol):
    """A part of the system that limits gates. It only reads; the controller sets the gates."""

    @property
    def traits(self) -> SourceTraits:
        """Its name, and what it may change."""
        ...

    async def contribute(self, states: Mapping[str, GateState]) -> Sequence[Contribution]:
        """Return its contribution to each gate that it limits.

        Args:
            states: The gates that the queue has, by name. A quota that is counted down there is contributed as it is.

        Raises:
            UnavailableError: The database is unavailable.
        """
        ...


class ExpiringSource(GateSource, Protocol):
    """A source whose contributions expire, and that records their end."""

    def has_expired(self) -> bool:
        """Return whether a contribution had expired at the last reading."""
        ...

    def close_expired(self, connection: sa.Connection) -> None:
        """Record the end of expired contributions, after the gates were set."""
        ...


class GateController:
    """Merges the contributions of all sources, and sets the gates that differ.

    Any number of processes may do so at once. Changes of sources that lock are applied by one process at a time. It
    reads the contributions again under the lock, so that the newest ones win.
    """

    def __init__(
        self,
        engine: sa.Engine,
        queue: Queue,
        sources: Sequence[GateSource],
        *,
        expiring: ExpiringSource | None = None,
    ) -> None:
        """Make a controller.

        Args:
            engine: Database that holds the lock.
            queue: Queue whose gates are set.
            sources: All sources of this process.
            expiring: One more source, whose expired contributions are closed under the lock.
        """
        self._engine = engine
        self._queue = queue
        self._expiring = expiring
        self._sources = [*sources, *([expiring] if expiring is not None else [])]
        self._locking = {source.traits.name for source in self._sources if source.traits.locks}
        self._seen: set[str] = set()  # gates of the queue
        self._coming: set[str] = set()  # gates of lanes that the queue gets next

    async def limit(self, gates: Collection[str]) -> None:
        """Set the limits of gates before the first job gets there. A gate that was seen before is not read again.

        Args:
            gates: Names of gates of lanes, which the queue may not have yet.

        Raises:
            UnavailableError: The database or the queue is unavailable.
        """
        new = set(gates) - self._seen - self._coming
        if new:
            self._coming |= new
            await self.apply()

    async def apply(self, *, only: str | None = None) -> list[GateChange]:
        """Set the gates that differ from the merged limits.

        Args:
            only: Name of the gate to set. None: all.

        Returns:
            What was changed.

        Raises:
            UnavailableError: The database or the queue is unavailable. The next call completes the rest.
        """
        changes = await self._plan(only)
        free = [change for change in changes if not change.sources & self._locking]
        for change in free:
            await self._set(change)
        expired = only is None and self._expiring is not None and self._expiring.has_expired()
        if len(free) == len(changes) and not expired:
            return free
        return free + await self._apply_locked(only)

    async def _apply_locked(self, only: str | None) -> list[GateChange]:
        connection = write_connection(self._engine)
        try:
            await asyncio.to_thread(self._lock, connection)
            changes = [change for change in await self._plan(only) if change.sources & self._locking]
            for change in changes:
                await self._set(change)
            await asyncio.to_thread(self._commit, connection, close_expired=only is None)
        finally:
            await asyncio.to_thread(connection.close)
        return changes

    async def _plan(self, only: str | None) -> list[GateChange]:
        states = {state.gate.name: state for state in await self._queue.gates()}
        self._seen |= states.keys()
        shown = {name: new_gate(name) for name in self._coming} | states
        contributions = [wanted for source in self._sources for wanted in await source.contribute(shown)]
        changes = plan_changes(states, contributions, [source.traits for source in self._sources])
        return [change for change in changes if only is None or change.gate == only]

    async def _set(self, change: GateChange) -> None:
        match change.pause_until_ms:
            case None:
                pass
            case 0:
                await self._queue.resume_gate(change.gate)
            case until_ms:
                await self._queue.pause_gate(change.gate, None if until_ms >= FOREVER_MS else until_ms)
        if change.limits:
            await self._queue.update_gate(change.gate, **change.limits)
        removed = [limit for limit, value in change.limits.items() if value is None]
        if removed:
            log.info("gate %s no longer has a limit: %s", change.gate, ", ".join(removed))

    def _lock(self, connection: sa.Connection) -> None:
        with translate_db_errors():
            connection.begin()
            acquire_lock(connection)

    def _commit(self, connection: sa.Connection, *, close_expired: bool) -> None:
        with translate_db_errors():
            if close_expired and self._expiring is not None:
                self._expiring.close_expired(connection)
            connection.commit()


def new_gate(name: str) -> GateState:
    """Return the state of a gate that no job has passed and that has no limit."""
    return GateState(gate=Gate(name=name), in_flight=0, parked_lanes=0, capacity=None, next_check_ms=None)


def count_corrected(changes: Iterable[GateChange]) -> int:
    """Return the number of changes that corrected a gate. A new pace for the hour is not a correction."""
    return sum(not change.paces for change in changes)
