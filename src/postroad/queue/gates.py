"""Limits and pauses: gates, which lanes share, and groups of lanes."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from postroad.queue.audit import STEP
from postroad.queue.codec import MAX_JOBS
from postroad.queue.scripts import Scripts

FOREVER_MS = 2**53 - 1
"""End of a pause that has no end."""


class Rate(Struct, frozen=True, kw_only=True):
    """``count`` jobs per ``per_ms``, evenly, and at most ``burst`` at once (GCRA, ITU-T I.371).

    In any window of w ms at most ``burst + w * count / per_ms`` jobs are admitted.
    """

    count: float
    per_ms: int
    burst: int = 1

    def __post_init__(self) -> None:
        if not (self.count > 0 and self.per_ms > 0 and self.burst >= 1):
            raise ValueError(f"{self} admits nothing: count, per_ms and burst start above 0; to stop, pause")


class Quota(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``left`` more jobs until ``until_ms``. After that time the quota limits nothing.

    ``size``: number of jobs that ``left`` was counted down from. None: not recorded.
    """

    left: int
    until_ms: int
    size: int | None = None


class Gate(Struct, frozen=True, kw_only=True):
    """One named gate with any number of limits. Every limit must admit a job."""

    name: str
    rate: Rate | None = None
    concurrency: int | None = None
    quota: Quota | None = None
    paused_until_ms: int | None = None


class GateState(Struct, frozen=True, kw_only=True):
    """A gate and its use. JSON keeps the field names of earlier versions.

    ``capacity``: jobs that it admits now; None: no limit. ``next_check_ms``: when its parked lanes are checked again.
    ``tat_ms``: GCRA's theoretical arrival time, when the burst is whole again. ``rate_used``: share of the burst that
    is used up, 0 to 1. ``owner``: component that set the limits; empty: a command, or none.
    """

    gate: Gate
    in_flight: int
    parked_lanes: int
    capacity: int | None = field(name="room")
    next_check_ms: int | None = field(name="wake_ms")
    tat_ms: float | None = field(default=None, name="rested_ms")
    rate_used: float = 0
    paused_since_ms: int | None = None
    owner: str = ""


def encode_changes(
    *,
    rate: Rate | UnsetType | None = UNSET,
    concurrency: int | UnsetType | None = UNSET,
    quota: Quota | UnsetType | None = UNSET,
    owner: str | UnsetType = UNSET,
    paused_until_ms: int | None = None,
) -> bytes:
    """Encode changes of a gate for the script ``update_gate``. UNSET keeps a limit, None or an empty owner removes it.

    Args:
        rate: Rate of the gate.
        concurrency: Maximum number of jobs in flight.
        quota: Quota of the gate.
        owner: Components that set the limits.
        paused_until_ms: End of a pause, in ms since the epoch. None keeps the pause.

    Returns:
        A MessagePack map of fields, where false removes a field.
    """
    changes: dict[str, float | str] = {}  # False removes a field.
    if rate is None:
        changes |= dict.fromkeys(("count", "per_us", "burst"), False)
    elif rate is not UNSET:
        # The scripts count in microseconds.
        changes |= {"count": rate.count, "per_us": rate.per_ms * 1000, "burst": rate.burst}
    if concurrency is not UNSET:
        changes["limit"] = False if concurrency is None else concurrency
    if quota is None:
        changes |= dict.fromkeys(("left", "quota_ms", "quota_size"), False)
    elif quota is not UNSET:
        size = False if quota.size is None else quota.size
        changes |= {"left": quota.left, "quota_ms": quota.until_ms, "quota_size": size}
    if owner is not UNSET:
        changes["owner"] = owner or False
    if paused_until_ms is not None:
        changes["paused_ms"] = paused_until_ms
    return msgspec.msgpack.encode(changes)


class StoredGate(Struct, frozen=True, kw_only=True):
    """A gate as the scripts encode it."""

    name: str
    in_flight: float
    parked: int
    wake_ms: float
    room: float
    count: float | None = None
    per_us: float | None = None
    burst: float | None = None
    limit: float | None = None
    left: float | None = None
    quota_ms: float | None = None
    quota_size: float | None = None
    paused_ms: float | None = None
    paused_since_ms: float | None = None
    rate_used: float = 0
    owner: str = ""
    tat: float = 0

    def state(self) -> GateState:
        """Convert to a GateState."""
        rate = quota = None
        if self.count is not None and self.per_us is not None and self.burst is not None:
            rate = Rate(count=self.count, per_ms=int(self.per_us / 1000), burst=int(self.burst))
        if self.left is not None and self.quota_ms is not None:
            size = None if self.quota_size is None else int(self.quota_size)
            quota = Quota(left=int(self.left), until_ms=int(self.quota_ms), size=size)
        gate = Gate(
            name=self.name,
            rate=rate,
            concurrency=None if self.limit is None else int(self.limit),
            quota=quota,
            paused_until_ms=None if self.paused_ms is None else int(self.paused_ms),
        )
        return GateState(
            gate=gate,
            in_flight=int(self.in_flight),
            parked_lanes=self.parked,
            capacity=None if self.room < 0 else int(self.room),
            next_check_ms=None if self.wake_ms < 0 else int(self.wake_ms),
            tat_ms=None if rate is None else self.tat / 1000,
            rate_used=min(self.rate_used, 1.0),
            paused_since_ms=None if self.paused_since_ms is None else int(self.paused_since_ms),
            owner=self.owner,
        )


def read_states(blob: bytes) -> list[GateState]:
    """Decode the gates that the script ``gates`` returns."""
    return [stored.state() for stored in msgspec.msgpack.decode(blob, type=list[StoredGate])]


class GateOperations:
    """The methods of `Queue` for gates and groups. All raise UnavailableError if the server does not reply."""

    _scripts: Scripts

    async def set_gate(self, gate: Gate, *, owner: str = "") -> None:
        """Set all limits of a gate. An absent limit is removed. A pause is kept unless the gate contains another.

        Args:
            gate: Name and limits.
            owner: Component that sets the limits. `gates` returns it, so that the component can find them again.

        Raises:
            UnavailableError: The server does not reply.
        """
        changes = encode_changes(
            rate=gate.rate,
            concurrency=gate.concurrency,
            quota=gate.quota,
            owner=owner,
            paused_until_ms=gate.paused_until_ms,
        )
        await self._scripts.update_gate(gate.name, changes)

    async def update_gate(
        self,
        name: str,
        *,
        rate: Rate | UnsetType | None = UNSET,
        concurrency: int | UnsetType | None = UNSET,
        quota: Quota | UnsetType | None = UNSET,
        owner: str | UnsetType = UNSET,
    ) -> None:
        """Change the limits of a gate that are named. The others, their use and a pause are kept.

        Args:
            name: Name of the gate.
            rate: The new rate. None removes it.
            concurrency: The new number of jobs in flight. None removes the limit.
            quota: The new quota. None removes it.
            owner: Component that sets the limits. Empty: none.

        Raises:
            UnavailableError: The server does not reply.
        """
        changes = encode_changes(rate=rate, concurrency=concurrency, quota=quota, owner=owner)
        await self._scripts.update_gate(name, changes)

    async def gates(self) -> list[GateState]:
        """Return every gate that was set, or that a lane names, sorted by name.

        Raises:
            UnavailableError: The server does not reply.
        """
        found: dict[str, GateState] = {}  # A scan may return a gate twice.
        cursor = b"0"
        while True:
            cursor, packed = await self._scripts.gates(cursor, STEP)
            found |= {state.gate.name: state for state in read_states(packed)}
            if cursor == b"0":
                return [found[name] for name in sorted(found)]

    async def pause_gate(self, gate: str, until_ms: int | None) -> None:
        """Pause a gate. Jobs in flight are not affected.

        Args:
            gate: Name of the gate.
            until_ms: End of the pause, in ms since the epoch. None: until `resume_gate`.

        Raises:
            UnavailableError: The server does not reply.
        """
        await self._scripts.pause_gate(gate, FOREVER_MS if until_ms is None else max(until_ms, 1))

    async def pause_gate_for(self, gate: str, pause_ms: int) -> None:
        """Pause a gate for a duration by the server's clock. Jobs in flight are not affected.

        Args:
            gate: Name of the gate.
            pause_ms: Duration of the pause, in ms.

        Raises:
            UnavailableError: The server does not reply.
        """
        await self._scripts.pause_gate(gate, -max(pause_ms, 1))

    async def resume_gate(self, gate: str) -> None:
        """End the pause of a gate.

        Args:
            gate: Name of the gate.

        Raises:
            UnavailableError: The server does not reply.
        """
        await self._scripts.pause_gate(gate, 0)

    async def pause_group(self, group: str) -> None:
        """Pause every lane of a group, also later ones, until `resume_group`. The next claim gets no job of them.

        Jobs in flight are not affected. The cost depends on the number of lanes, not of jobs. Many lanes are paused in
        steps. If the caller dies, the remaining lanes are not paused until this is called again.

        Args:
            group: Name of the group.

        Raises:
            ValueError: The name is empty.
            UnavailableError: The server does not reply.
        """
        after = await self._scripts.pause_group(_require_name(group), 0, STEP)
        while after:
            after = await self._scripts.pause_group(group, after, STEP)

    async def resume_group(self, group: str) -> bool:
        """Resume a paused group. Many lanes are resumed in steps; if the caller dies, claims complete them.

        Args:
            group: Name of the group.

        Returns:
            Whether the group was paused.

        Raises:
            ValueError: The name is empty.
            UnavailableError: The server does not reply.
        """
        more = await self._scripts.resume_group(_require_name(group), STEP)
        if more < 0:
            return False
        while more > 0:
            more = await self._scripts.resume_group(group, STEP)
        return True

    async def cancel_group(self, group: str, cause: str) -> int:
        """End every queued or scheduled job of a group, and its pause.

        First all lanes are marked as cancelled, in steps. From then on no claim gets their jobs. Then the jobs end in
        steps of at most a thousand; if the caller dies, claims complete them. A job that is in flight, uncertain or
        dead ends when it returns to its lane. Jobs that are enqueued later are not affected.

        Args:
            group: Name of the group.
            cause: Reason, for the events.

        Returns:
            Number of jobs that this call ended.

        Raises:
            ValueError: The name is empty.
            UnavailableError: The server does not reply.
        """
        upto = await self._scripts.cancel_group(_require_name(group), cause, 0, STEP)
        while upto:
            upto = await self._scripts.cancel_group(group, cause, upto, STEP)
        cancelled, kept, processed = 0, 0, MAX_JOBS
        while processed == MAX_JOBS:
            processed, scheduled, gone, ended = await self._scripts.cancel_step(MAX_JOBS, kept)
            kept += scheduled - gone
            cancelled += ended
        return cancelled


def _require_name(group: str) -> str:
    if not group:
        raise ValueError("lanes without a group are no group; pause a gate that all of them share")
    return group
