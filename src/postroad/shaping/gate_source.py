"""What shaping.toml and the open changes contribute to gates."""

from __future__ import annotations

import asyncio
import logging
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
            shaped: From addresses for which the limits of the file hold.
            clock: Time by which a change is over.
        """
        self._engine = engine
        self._shaping = shaping
        self._shaped = frozenset(shaped)
        self._clock = clock
        self._ended: Sequence[ShapingChange] = ()

    async def contribute(self, states: Mapping[str, GateState]) -> list[Contribution]:
        """Return the contribution to each gate that the file or an open change limits. Raises UnavailableError."""
        changes = await asyncio.to_thread(self._read_open)
        now = self._clock.now()
        self._ended = [change for change in changes if is_expired(change, now)]
        by_gate: dict[str, list[ShapingChange]] = {}
        for change in changes:
            by_gate.setdefault(change.gate, []).append(change)
        found = (
            contribution(name, self._shaping.limits_of_gate(name, self._shaped), by_gate.get(name, ()), now)
            for name in sorted(states.keys() | by_gate.keys())
        )
        return [each for each in found if each is not None]

    def has_expired(self) -> bool:
        """Return whether a change was over when the changes were read last."""
        return bool(self._ended)

    def close_expired(self, connection: sa.Connection) -> None:
        """Record the end of the changes that were over."""
        ids = [change.id for change in self._ended if change.id is not None]
        if ids and store.restore(connection, ids, self._clock.now(), "end"):
            log.info("as before: %s", ", ".join(f"{change.gate} ({change.rule})" for change in self._ended))

    def _read_open(self) -> Sequence[ShapingChange]:
        with read(self._engine) as connection:
            return store.open_changes(connection)
