"""What a person is shown of the shaping: what holds for whom, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from postroad.delivery.job import provider_gate, sender_gate
from postroad.delivery.shaping.decide import over, wanted
from postroad.delivery.shaping.file import Shaping
from postroad.delivery.shaping.limits import Limits, Scope
from postroad.store.shaping import ShapingChange


def words(change: ShapingChange) -> str:
    """What a change sets, and until when."""
    parts = ["suspended"] if change.suspended else []
    if change.rate_count is not None and change.rate_per_ms is not None:
        parts.append(f"{change.rate_count:g} in {change.rate_per_ms / 1000:g} s")
    if change.connections is not None:
        parts.append(f"{change.connections} at once")
    if change.share is not None:
        parts.append(f"{change.share:.0%} of its pace")
    elif change.ends_at is None:
        parts.append("until it is resumed")
    ends = f" until {change.ends_at:%Y-%m-%d %H:%M:%S} UTC" if change.ends_at is not None else ""
    return ", ".join(parts) + ends


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How fast one sender may go at one provider now. ``why``: the table of each limit; ``held``: what lowers them."""

    sender: str
    provider: str
    gate: str
    limits: Limits | None
    why: dict[str, str]
    rate: str | None
    connections: int | None
    held: Sequence[ShapingChange]


def standing(
    shaping: Shaping,
    senders: Iterable[tuple[str, bool]],
    providers: Iterable[str],
    changes: Iterable[ShapingChange],
    now: datetime,
) -> list[Standing]:
    """What holds for each sender (address, and whether the file's limits hold for it) at each provider."""
    holding = [change for change in changes if not over(change, now)]
    providers = sorted(set(providers))
    found = []
    for sender, shaped in senders:
        for provider in providers:
            scope = Scope(sender=sender, provider=provider)
            gates = (provider_gate(sender, provider), sender_gate(sender))
            held = [change for change in holding if change.gate in gates]
            limits = shaping.limits_of_gate(scope.gate, [sender] if shaped else [])
            why = shaping.explained(scope)[1] if limits is not None else {}
            gate = wanted(scope.gate, limits, held, now).gate
            found.append(
                Standing(
                    sender=sender,
                    provider=provider,
                    gate=scope.gate,
                    limits=limits,
                    why=why,
                    rate=f"{gate.rate.count:g} in {gate.rate.per_ms / 1000:g} s" if gate.rate is not None else None,
                    connections=gate.concurrency,
                    held=held,
                )
            )
    return found
