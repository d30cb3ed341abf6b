"""Reads the limits of gates for a simulation: of the settings, of shaping.toml, of warmup, and of the queue itself."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from math import inf

import sqlalchemy as sa
from msgspec import Struct

from postroad.clock import Clock
from postroad.delivery.job import lane_of
from postroad.forecast.gates import RateGate, SimulatedGate, WarmupGate
from postroad.forecast.simulate import LaneKey
from postroad.gates.controller import new_gate
from postroad.gates.name import GateKind, GateName, Receiver, kind_of
from postroad.gates.plan import Contribution, GateLimit, strictest
from postroad.gates.settings_limits import SettingsLimits, gates_of
from postroad.queue import FOREVER_MS, GateState
from postroad.senders.dns_health import DnsHolds
from postroad.settings import Settings
from postroad.shaping.config import Shaping, shaped_senders
from postroad.shaping.gate_source import ShapingLimits
from postroad.store import warmup as store
from postroad.store.campaign import Campaign, CampaignState
from postroad.store.engine import read
from postroad.warmup.caps import providers
from postroad.warmup.day import count_mail, day_of, to_warmup_day
from postroad.warmup.decide import KEPT_DAYS, WarmupDay, fill_missing_days
from postroad.warmup.identity import WarmingIdentity, group_by_senders, identities, identities_by_sender


class GateInputs(Struct, frozen=True, kw_only=True):
    """What gates of a simulation are made of, so that each run has gates of its own.

    ``limits``: contributions to each gate, and its state in the queue. ``warming``: by gate name.
    """

    limits: Mapping[str, tuple[Sequence[Contribution], GateState | None]]
    warming: Mapping[str, WarmingInput]
    gates_of: Mapping[LaneKey, tuple[str, ...]]
    now: float

    def open(self, factors: Mapping[str, float] | None = None) -> dict[LaneKey, list[SimulatedGate]]:
        """Return new gates of each lane. ``factors``: multiply the rate or cap of these gates."""
        factors = factors or {}
        gates: dict[str, SimulatedGate] = {}
        for name, (contributions, state) in self.limits.items():
            gates[name] = _rate_gate(name, contributions, state, factors.get(name, 1.0))
        for name, warming in self.warming.items():
            gates[name] = WarmupGate(
                name,
                warming.provider,
                warming.identities,
                warming.history,
                now=self.now,
                used=warming.used,
                factor=factors.get(name, 1.0),
            )
        return {lane: [gates[name] for name in names] for lane, names in self.gates_of.items()}


class WarmingInput(Struct, frozen=True, kw_only=True):
    """Identities with the same senders at one provider: their days before, and what they sent today."""

    provider: str
    identities: Sequence[WarmingIdentity]
    history: Sequence[Sequence[WarmupDay]]
    used: float


class LimitSources(Struct, frozen=True, kw_only=True):
    """Where limits come from. ``states``: gates of the queue by name; empty if it cannot be reached."""

    engine: sa.Engine
    settings: Settings
    shaping: Shaping
    states: Mapping[str, GateState]
    queue: str
    clock: Clock


async def read_gates(
    sources: LimitSources, campaign: Campaign, lanes: Iterable[LaneKey], routes: Mapping[str, str]
) -> GateInputs:
    """Read the limits of every gate that these lanes have.

    Args:
        sources: Where limits come from.
        campaign: The campaign. If it is paused, its gate admits no message.
        lanes: The lanes, also those of senders that overflow may use.
        routes: Route of each sender, by its address.

    Returns:
        The gates of each lane, to be opened for each run.

    Raises:
        UnavailableError: The database is unavailable.
    """
    by_sender = identities_by_sender(sources.settings)
    names = {
        lane: lane_of(
            sender=lane.sender,
            receiver=Receiver.parse(lane.receiver) or Receiver(lane.provider),
            campaign=campaign.name if lane.campaign else "",
            route=routes.get(lane.sender, ""),
            job_class="bulk",
            warmup=by_sender.get(lane.sender, ()),
        ).gates
        for lane in lanes
    }
    every = {name for gates in names.values() for name in gates}
    warming = {name for name in every if kind_of(name) is GateKind.WARMUP}
    limits = await _read_limits(sources, every - warming)
    if campaign.state is CampaignState.PAUSED:
        gate = str(GateName.campaign(campaign.name))
        limits[gate] = [Contribution(source="campaign", gate=gate, paused_until_ms=FOREVER_MS)], None
    return GateInputs(
        limits=limits,
        warming=await asyncio.to_thread(_read_warming, sources, warming),
        gates_of=names,
        now=sources.clock.now().timestamp(),
    )


async def _read_limits(
    sources: LimitSources, names: set[str]
) -> dict[str, tuple[Sequence[Contribution], GateState | None]]:
    settings = sources.settings
    # Shaping contributes to the gates that it is shown.
    shown = {name: sources.states.get(name) or new_gate(name) for name in names}
    by_gate: dict[str, list[Contribution]] = defaultdict(list)
    for source in (
        SettingsLimits(gates_of(settings, settings.queue(sources.queue))),
        ShapingLimits(sources.engine, sources.shaping, shaped_senders(settings), sources.clock),
        DnsHolds(sources.engine),
    ):
        for contribution in await source.contribute(shown):
            by_gate[contribution.gate].append(contribution)
    return {name: (by_gate[name], sources.states.get(name)) for name in names}


def _rate_gate(name: str, contributions: Sequence[Contribution], state: GateState | None, factor: float) -> RateGate:
    rates = [wanted.rate for wanted in contributions if wanted.rate is not None]
    pauses = [wanted.paused_until_ms or 0 for wanted in contributions]
    if state is not None:
        pauses.append(state.gate.paused_until_ms or 0)
        if not state.owner and state.gate.rate is not None:  # An operator set it.
            rates.append(state.gate.rate)
    rate = strictest(GateLimit.RATE, rates)
    until_ms = max(pauses, default=0)
    return RateGate(
        name,
        rate=rate,
        factor=factor,
        quota=state.gate.quota if state is not None else None,
        paused_until=inf if until_ms >= FOREVER_MS else until_ms / 1000,
    )


def _read_warming(sources: LimitSources, names: set[str]) -> dict[str, WarmingInput]:
    """Read the days of each warming gate: what was decided and sent before, and what was sent today."""
    now = sources.clock.now()
    found: dict[str, WarmingInput] = {}
    for group in group_by_senders(identities(sources.settings)):
        gates = {str(GateName.warmup(provider, group[0].name)): provider for provider in providers()}
        wanted = {name: provider for name, provider in gates.items() if name in names}
        if not wanted:
            continue
        today = day_of(group[0], now)
        with read(sources.engine) as connection:
            rows = store.days_of(connection, [one.name for one in group], since=today - timedelta(days=KEPT_DAYS))
            sent = count_mail(connection, group[0], [today])[today]
        days: dict[tuple[str, str], list[WarmupDay]] = defaultdict(list)
        for row in rows:
            days[row.identity, row.provider].append(to_warmup_day(row))
        for name, provider in wanted.items():
            found[name] = WarmingInput(
                provider=provider,
                identities=group,
                history=[_complete(days[one.name, provider], day_of(one, now)) for one in group],
                used=sent[provider].attempts if provider in sent else 0,
            )
    return found


def _complete(days: Sequence[WarmupDay], today: date) -> list[WarmupDay]:
    """Return the days before today without gaps, and today's if it is decided."""
    before = [day for day in days if day.day < today]
    return [*(fill_missing_days(before, until=today) if before else []), *(day for day in days if day.day == today)]
