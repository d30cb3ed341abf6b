"""What a person is shown of the shaping: what holds for whom, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from postroad.dns.providers import provider_table
from postroad.gates.name import GateName, Receiver
from postroad.gates.plan import Contribution
from postroad.settings import RouteKind, RouteSettings
from postroad.shaping.config import Shaping
from postroad.shaping.decide import SHAPING, contribution, is_expired
from postroad.shaping.limits import TAIL, LimitScope, ReceiverLimits, SessionLimits, session_limits
from postroad.store.mail_domain import providers_of_sites, whose_domains
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


class Way(NamedTuple):
    """A sender, and the route that its mail leaves by. None: the settings no longer name the sender."""

    sender: str
    route: str = ""
    settings: RouteSettings | None = None

    @property
    def shaped(self) -> bool:
        return self.settings is not None and self.settings.is_shaped


@dataclass(frozen=True, kw_only=True)
class ShapingStatus:
    """How fast one sender may go at one receiver now.

    ``why``: the table of each limit; ``held``: what lowers them; ``terms``: of the sessions of a direct route;
    ``enforced``: where each limit is held, a gate (by all workers together) or a route (by each of its sessions).
    """

    sender: str
    provider: str
    receiver: str
    gate: str
    limits: ReceiverLimits | None
    why: dict[str, str]
    rate: str | None
    connections: int | None
    terms: SessionLimits | None
    enforced: dict[str, str]
    held: Sequence[ShapingChange]


def destinations(
    connection: sa.Connection, shaping: Shaping, gates: Iterable[str], changes: Iterable[ShapingChange]
) -> list[Receiver]:
    """Everything that there is something to say of: what the file names, and what has a gate or a change."""
    found = {Receiver(provider) for provider in (TAIL, *shaping.provider)}
    names = {*gates, *(change.gate for change in changes)}
    for scope in filter(None, map(LimitScope.of_gate, names)):
        found.add(scope.receiver)
    sites = providers_of_sites(connection, shaping.site)
    found |= {Receiver(sites.get(site, TAIL), site) for site in shaping.site}
    known = whose_domains(connection, shaping.domain)
    for domain in shaping.domain:
        well_known = provider_table().of_domain(domain)
        provider, site = (well_known, well_known) if well_known is not None else known.get(domain, (TAIL, domain))
        found.add(Receiver(provider, site if site in shaping.site else None, domain))
    return sorted(found, key=str)


def standing(
    shaping: Shaping,
    ways: Iterable[Way],
    receivers: Sequence[Receiver],
    changes: Iterable[ShapingChange],
    now: datetime,
) -> list[ShapingStatus]:
    """What holds for each sender at each receiver."""
    holding = [change for change in changes if not is_expired(change, now)]
    return [_standing(shaping, way, receiver, holding, now) for way in ways for receiver in receivers]


def _standing(
    shaping: Shaping, way: Way, to: Receiver, holding: Sequence[ShapingChange], now: datetime
) -> ShapingStatus:
    scope = LimitScope(sender=way.sender, receiver=shaping.gated(to))
    held = [change for change in holding if change.gate in (scope.gate, str(GateName.sender(way.sender)))]
    at_gate = shaping.limits_of_gate(scope.gate, [way.sender] if way.shaped else [])
    limits, why = shaping.explained(LimitScope(sender=way.sender, receiver=to)) if way.shaped else (None, {})
    wanted = contribution(scope.gate, at_gate, held, now) or Contribution(source=SHAPING, gate=scope.gate)
    terms = None
    enforced: dict[str, str] = {}
    if limits is not None and at_gate is not None:
        enforced = {name: scope.gate for name in ("rate", "connections") if getattr(limits, name) is not None}
        shared = str(GateName.provider(to.provider))
        if shaping.limits_of_gate(shared, [way.sender]) is not None:
            enforced["connections_in_all"] = shared
    if limits is not None and way.settings is not None and way.settings.kind is RouteKind.DIRECT:
        terms = session_limits(way.settings, limits)
        enforced |= dict.fromkeys(("messages_per_connection", "tls"), f"route {way.route}")
    return ShapingStatus(
        sender=way.sender,
        provider=to.provider,
        receiver=str(to),
        gate=scope.gate,
        limits=limits,
        why=why,
        rate=f"{wanted.rate.count:g} in {wanted.rate.per_ms / 1000:g} s" if wanted.rate is not None else None,
        connections=wanted.concurrency,
        terms=terms,
        enforced=enforced,
        held=held,
    )
