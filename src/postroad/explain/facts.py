"""Reads from the database what determines whether and when touches may be sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.campaign.holidays import HolidayCalendar
from postroad.delivery.cohort_key import cohort_of
from postroad.delivery.exit_check import ClaimedStep, ExitCheck
from postroad.dns.providers import OTHER_PROVIDERS, provider_table
from postroad.gates.name import QUEUE_GATE, GateName, Receiver
from postroad.shaping.config import Shaping
from postroad.store.cohort import Cohort, CohortPause, cohort_keys, pauses
from postroad.store.dns_report import open_holds
from postroad.store.frequency import FrequencyHold, FrequencyRule, frequency_holds
from postroad.store.heartbeat import ADVANCE, last_heartbeat
from postroad.store.ledger import WAITING, TouchState
from postroad.store.operator_pause import operator_pauses
from postroad.store.rollout import RolloutShare, shares_of
from postroad.store.shaping import open_changes
from postroad.store.touch_history import TouchEventRow, events_of_touches
from postroad.store.touch_lookup import FoundSuppression, FoundTouch, suppression_of
from postroad.store.warmup import newest_days
from postroad.warmup.caps import Cap, effective_cap, opens_at, providers
from postroad.warmup.day import day_of, midnight
from postroad.warmup.identity import WarmingIdentity, group_by_senders, identities


class GatePause(NamedTuple):
    """Why a gate is paused. ``rule``: of the shaping, or the check that failed. ``until`` None: until it is ended."""

    rule: str
    reply: str
    since: datetime
    until: datetime | None


class WarmupCap(NamedTuple):
    """The current cap of a warming identity at a provider."""

    identity: WarmingIdentity
    cap: Cap

    def opens(self, now: datetime) -> datetime:
        """Return when working hours and pauses allow mail: ``now``, or a later time."""
        return opens_at(self.identity.warmup, self.identity, self.cap, now)

    def next_opening(self, now: datetime) -> datetime:
        """Return when mail may leave again after today's cap is used up, or before today's working hours."""
        opens = self.opens(now)
        if opens > now:
            return opens
        return self.opens(midnight(day_of(self.identity, now) + timedelta(days=1), self.identity.zone))


class SharedFacts(NamedTuple):
    """Facts that concern many touches. ``pauses``, ``caps``: by gate. ``advanced_at``: last pass over all campaigns."""

    pauses: Mapping[str, GatePause]
    caps: Mapping[str, WarmupCap]
    cohorts: Mapping[Cohort, CohortPause]
    advanced_at: datetime | None
    calendar: HolidayCalendar


class TouchFacts(NamedTuple):
    """Facts of one touch.

    ``exit``: the exit condition that its recipient matches. ``events``: what happened to it, in order of time.
    ``gates``: as `gates_of` returns them. ``rollout``: of its campaign, if it is withheld.
    """

    shared: SharedFacts
    suppression: FoundSuppression | None
    cohort_pause: CohortPause | None
    frequency: FrequencyHold | None
    exit: str | None
    events: Sequence[TouchEventRow]
    gates: frozenset[str]
    rollout: Sequence[RolloutShare] = ()


def load_facts(connection: sa.Connection, context: AppContext, touches: Sequence[FoundTouch]) -> dict[int, TouchFacts]:
    """Return the facts of touches by their ids."""
    now = context.clock.now()
    gates = {touch.id: gates_of(touch, context.shaping) for touch in touches}
    shared = _shared(connection, context, frozenset().union(*gates.values()))
    ids = [touch.id for touch in touches]
    events: defaultdict[int, list[TouchEventRow]] = defaultdict(list)
    for event in events_of_touches(connection, ids) if ids else ():
        events[event.touch_id].append(event)
    cohorts = _cohorts(connection, context, ids) if shared.cohorts and ids else {}
    waiting = [touch.id for touch in touches if touch.state in WAITING]
    steps = {touch.id: ClaimedStep(touch.step_id, frozenset()) for touch in touches if touch.state in WAITING}
    leaving = ExitCheck().leaving(connection, steps, now)
    rule = FrequencyRule(caps=context.settings.frequency, now=now)
    withheld = {touch.campaign_id for touch in touches if touch.state is TouchState.WITHHELD}
    rollouts = {campaign_id: shares_of(connection, campaign_id) for campaign_id in withheld}
    over_cap = frequency_holds(connection, waiting, rule) if waiting else {}
    return {
        touch.id: TouchFacts(
            shared=shared,
            suppression=_suppression(connection, context, touch),
            cohort_pause=shared.cohorts.get(cohorts[touch.id]) if touch.id in cohorts else None,
            frequency=over_cap.get(touch.id),
            exit=leaving.get(touch.id),
            events=events[touch.id],
            gates=gates[touch.id],
            rollout=rollouts.get(touch.campaign_id, ()) if touch.state is TouchState.WITHHELD else (),
        )
        for touch in touches
    }


def gates_of(touch: FoundTouch, shaping: Shaping) -> frozenset[str]:
    """Return the gates of a touch whose pauses the ledger records.

    A site without a known provider may have a lane of its own, so the gates for both cases are included.
    """
    well_known = provider_table().of_domain(touch.domain)
    provider = well_known or touch.provider or OTHER_PROVIDERS
    site = well_known or touch.site or touch.domain
    receivers = (shaping.receiver_of(provider, site, touch.domain), Receiver(site))
    names = (
        GateName.hold(touch.sender),
        GateName.sender(touch.sender),
        *(GateName.at_receiver(touch.sender, receiver) for receiver in receivers),
        GateName.provider(provider),
        GateName.route(touch.route),
        GateName.campaign(touch.campaign),
        QUEUE_GATE,
    )
    return frozenset(map(str, names))


def hashes_of(context: AppContext, address: str) -> tuple[str, ...]:
    """Return the hashes by which an address may be suppressed, that of the current key first."""
    return context.hash_of(address), *context.hash_of.older(address)


def _shared(connection: sa.Connection, context: AppContext, names: Collection[str]) -> SharedFacts:
    now = context.clock.now()
    gates = {
        str(GateName.hold(sender)): GatePause("DNS", hold.reason, hold.held_at, None)
        for sender, hold in open_holds(connection).items()
        if hold.held_at is not None
    }
    for pause in operator_pauses(connection, names, now, now):
        gates[pause.gate] = GatePause("operator", f"paused by {pause.by}", pause.at, pause.ends_at)
    for change in open_changes(connection):
        if change.suspended:
            gates[change.gate] = GatePause(change.rule, change.reply, change.at, change.ends_at)
    return SharedFacts(
        pauses=gates,
        caps=_caps(connection, context),
        cohorts={named.pause.cohort: named.pause for named in pauses(connection)},
        advanced_at=last_heartbeat(connection, ADVANCE),
        calendar=context.calendar,
    )


def _suppression(connection: sa.Connection, context: AppContext, touch: FoundTouch) -> FoundSuppression | None:
    candidates = (
        suppression_of(connection, touch.address, touch.audience_id, hashed, transactional=touch.transactional)
        for hashed in hashes_of(context, touch.address)
    )
    return next((candidate for candidate in candidates if candidate is not None), None)


def _cohorts(connection: sa.Connection, context: AppContext, ids: Iterable[int]) -> dict[int, Cohort]:
    keys = cohort_keys(connection, list(ids), source_field=context.settings.cohort_breaker.source_field)
    return {key.touch_id: cohort_of(key) for key in keys}


def _caps(connection: sa.Connection, context: AppContext) -> dict[str, WarmupCap]:
    groups = group_by_senders(identities(context.settings))
    names = [identity.name for group in groups for identity in group]
    newest = {(row.identity, row.provider): row for row in newest_days(connection, names)} if names else {}
    return {
        str(GateName.warmup(provider, group[0].name)): WarmupCap(group[0], effective_cap(group, provider, newest))
        for group in groups
        for provider in providers()
    }
