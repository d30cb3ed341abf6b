"""Describes limits and changes for commands: which limits apply to a sender at a receiver, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postroad.dns.providers import OTHER_PROVIDERS, provider_table
from postroad.gates.name import GateName, Receiver, SenderRoute
from postroad.gates.plan import Contribution
from postroad.settings import RouteKind, RouteSettings
from postroad.shaping.config import Shaping
from postroad.shaping.decide import SHAPING, contribution, is_expired
from postroad.shaping.limits import LimitScope, ReceiverLimits, SessionLimits, session_limits
from postroad.store.mail_domain import known_providers, providers_of_sites
from postroad.store.shaping import ShapingChange


def describe(change: ShapingChange) -> str:
    """Return what a change sets, and its end."""
    ends = f" until {change.ends_at:%Y-%m-%d %H:%M:%S} UTC" if change.ends_at is not None else ""
    return describe_limits(change) + ends


def describe_limits(change: ShapingChange) -> str:
    """Return what a change sets."""
    parts = ["suspended"] if change.suspended else []
    if change.rate_count is not None and change.rate_per_ms is not None:
        parts.append(f"{change.rate_count:g} in {change.rate_per_ms / 1000:g} s")
    if change.connections is not None:
        parts.append(f"{change.connections} at once")
    if change.share is not None:
        parts.append(f"{change.share:.0%} of its pace")
    elif change.ends_at is None:
        parts.append("until it is resumed")
    return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class ShapingStatus:
    """The limits of one sender at one receiver now.

    ``why``: by limit, the table that it comes from. ``held``: changes that lower the limits. ``session``: limits of the
    sessions of a direct route. ``enforced``: by limit, the gate (for all workers together) or route (for each session)
    that enforces it.
    """

    sender: str
    provider: str
    receiver: str
    gate: str
    limits: ReceiverLimits | None
    why: dict[str, str]
    rate: str | None
    connections: int | None
    session: SessionLimits | None
    enforced: dict[str, str]
    held: Sequence[ShapingChange]


def known_receivers(
    connection: sa.Connection, shaping: Shaping, gates: Iterable[str], changes: Iterable[ShapingChange]
) -> list[Receiver]:
    """Return the receivers that the file names, or that have a gate or a change.

    Args:
        connection: The store.
        shaping: The file.
        gates: Names of the gates that the queue has.
        changes: Open changes.
    """
    receivers = {Receiver(provider) for provider in (OTHER_PROVIDERS, *shaping.provider)}
    names = {*gates, *(change.gate for change in changes)}
    for scope in filter(None, map(LimitScope.of_gate, names)):
        receivers.add(scope.receiver)
    sites = providers_of_sites(connection, shaping.site)
    receivers |= {Receiver(sites.get(site, OTHER_PROVIDERS), site) for site in shaping.site}
    known = known_providers(connection, shaping.domain)
    for domain in shaping.domain:
        well_known = provider_table().of_domain(domain)
        unknown = (OTHER_PROVIDERS, domain)
        provider, site = known.get(domain, unknown) if well_known is None else (well_known, well_known)
        receivers.add(Receiver(provider, site if site in shaping.site else None, domain))
    return sorted(receivers, key=str)


def shaping_status(
    shaping: Shaping,
    routes: Mapping[str, RouteSettings],
    senders: Iterable[SenderRoute],
    receivers: Sequence[Receiver],
    changes: Iterable[ShapingChange],
    now: datetime,
) -> list[ShapingStatus]:
    """Return the limits of each sender at each receiver.

    Args:
        shaping: The file.
        routes: Settings of the routes, by name.
        senders: The senders.
        receivers: The receivers.
        changes: Open changes, also expired ones.
        now: The time.
    """
    active = [change for change in changes if not is_expired(change, now)]
    return [
        _status(shaping, sender, routes.get(sender.route), receiver, active, now)
        for sender in senders
        for receiver in receivers
    ]


def _status(
    shaping: Shaping,
    sender: SenderRoute,
    route: RouteSettings | None,
    receiver: Receiver,
    active: Sequence[ShapingChange],
    now: datetime,
) -> ShapingStatus:
    address, shaped = sender.address, route is not None and route.is_shaped
    gate = LimitScope(sender=address, receiver=shaping.gate_receiver(receiver)).gate
    held = [change for change in active if change.gate in (gate, str(GateName.sender(address)))]
    at_gate = shaping.limits_of_gate(gate, [address] if shaped else [])
    scope = LimitScope(sender=address, receiver=receiver)
    limits, why = shaping.limits_with_sources(scope) if shaped else (None, {})
    wanted = contribution(gate, at_gate, held, now) or Contribution(source=SHAPING, gate=gate)
    session = None
    enforced: dict[str, str] = {}
    if limits is not None and at_gate is not None:
        enforced = {name: gate for name in ("rate", "connections") if getattr(limits, name) is not None}
        shared = str(GateName.provider(receiver.provider))
        if shaping.limits_of_gate(shared, [address]) is not None:
            enforced["connections_in_all"] = shared
    if limits is not None and route is not None and route.kind is RouteKind.DIRECT:
        session = session_limits(route, limits)
        enforced |= dict.fromkeys(("messages_per_connection", "tls"), f"route {sender.route}")
    return ShapingStatus(
        sender=address,
        provider=receiver.provider,
        receiver=str(receiver),
        gate=gate,
        limits=limits,
        why=why,
        rate=f"{wanted.rate.count:g} in {wanted.rate.per_ms / 1000:g} s" if wanted.rate is not None else None,
        connections=wanted.concurrency,
        session=session,
        enforced=enforced,
        held=held,
    )
