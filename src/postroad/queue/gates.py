"""Gates: named limits that lanes share."""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

FOREVER_MS = 2**53 - 1
"""A pause until somebody lifts it."""


class Rate(Struct, frozen=True, kw_only=True):
    """``count`` jobs per ``per_ms``, evenly, and at most ``burst`` at once (GCRA).

    In any window of w ms at most ``burst + w * count / per_ms`` jobs are admitted.
    """

    count: float
    per_ms: int
    burst: int = 1

    def __post_init__(self) -> None:
        if not (self.count > 0 and self.per_ms > 0 and self.burst >= 1):
            raise ValueError(f"{self} admits nothing: count, per_ms and burst start above 0; to stop, pause")


class Quota(Struct, frozen=True, kw_only=True):
    """``left`` more jobs until ``until_ms``. Behind that instant the quota limits nothing."""

    left: int
    until_ms: int


class Gate(Struct, frozen=True, kw_only=True):
    """One named gate. It may carry several limits; one that is absent admits."""

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


def limits_of(gate: Gate, *, only: bool = False, owner: str = "") -> bytes:
    """The limits as the script ``set_gate`` reads them; absent ones are left out. ``only``: those stay as they are."""
    limits: dict[str, float | str] = {}
    if owner:
        limits["owner"] = owner
    if only:
        limits["only"] = 1
    if gate.rate is not None:
        # The scripts count in microseconds.
        limits |= {"count": gate.rate.count, "per_us": gate.rate.per_ms * 1000, "burst": gate.rate.burst}
    if gate.concurrency is not None:
        limits["limit"] = gate.concurrency
    if gate.quota is not None:
        limits |= {"left": gate.quota.left, "quota_ms": gate.quota.until_ms}
    if gate.paused_until_ms is not None:
        limits["paused_ms"] = gate.paused_until_ms
    return msgspec.msgpack.encode(limits)


class StoredGate(Struct, frozen=True, kw_only=True):
    """A gate as scripts return it."""

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
    paused_ms: float | None = None
    paused_since_ms: float | None = None
    rate_used: float = 0
    owner: str = ""
    tat: float = 0

    def state(self) -> GateState:
        rate = quota = None
        if self.count is not None and self.per_us is not None and self.burst is not None:
            rate = Rate(count=self.count, per_ms=int(self.per_us / 1000), burst=int(self.burst))
        if self.left is not None and self.quota_ms is not None:
            quota = Quota(left=int(self.left), until_ms=int(self.quota_ms))
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
    # An empty Lua table is an empty array in msgpack, so no gates is [] as well.
    return [stored.state() for stored in msgspec.msgpack.decode(blob, type=list[StoredGate])]
