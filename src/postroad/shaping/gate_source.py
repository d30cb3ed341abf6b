"""Contributes the limits of shaping.toml and the open changes to gates."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from postroad.clock import Clock
from postroad.gates.plan import Contribution, SourceTraits
from postroad.queue import GateState
from postroad.shaping.config import Shaping
from postroad.shaping.decide import SHAPED, SHAPING, contribution, is_expired
from postroad.store import shaping as store
from postroad.store.engine import read
from postroad.store.shaping import ShapingChange

log = logging.getLogger(__name__)


class ShapingLimits:
    """Contributes limits of receivers, lowered by what their replies changed, and the pauses of senders."""

    traits = SourceTraits(name=SHAPING, limits=SHAPED, locks=True)

    def __init__(self, engine: sa.Engine, shaping: Shaping, shaped: Collection[str], clock: Clock) -> None:
        """Make the source.

        Args:
            engine: Database of the changes.
            shaping: The file.
            shaped: From addresses to which the limits of the file apply.
            clock: Tells when a change expires.
        """
        self._engine = engine
        self._shaping = shaping
        self._shaped = frozenset(shaped)
        self._clock = clock
        self._expired: Sequence[ShapingChange] = ()

    async def contribute(self, states: Mapping[str, GateState]) -> list[Contribution]:
        """Return the contribution to each gate that the file or an open change limits.

        Args:
            states: The gates that the queue has, by name.

        Raises:
            UnavailableError: The database is unavailable.
        """
        changes = await asyncio.to_thread(self._read_open)
        now = self._clock.now()
        self._expired = [change for change in changes if is_expired(change, now)]
        by_gate: defaultdict[str, list[ShapingChange]] = defaultdict(list)
        for change in changes:
            by_gate[change.gate].append(change)
        contributions = (
            contribution(name, self._shaping.limits_of_gate(name, self._shaped), by_gate[name], now)
            for name in sorted(states.keys() | by_gate.keys())
        )
        return [wanted for wanted in contributions if wanted is not None]

    def has_expired(self) -> bool:
        """Return whether a change had expired at the last reading."""
        return bool(self._expired)

    def close_expired(self, connection: sa.Connection) -> None:
        """Record the end of the changes that had expired at the last reading."""
        ids = [change.id for change in self._expired if change.id is not None]
        if ids and store.restore(connection, ids, self._clock.now(), "end"):
            log.info("restored: %s", ", ".join(f"{change.gate} ({change.rule})" for change in self._expired))

    def _read_open(self) -> Sequence[ShapingChange]:
        with read(self._engine) as connection:
            return store.open_changes(connection)
