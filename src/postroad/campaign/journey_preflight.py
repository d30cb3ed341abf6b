"""Preflight of a journey: how many recipients would take which branch now, and who lacks the date of a wait."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import sqlalchemy as sa

from postroad.campaign.entry import CampaignEntry
from postroad.campaign.finding import PreflightCode, PreflightFinding, step_finding
from postroad.campaign.journey import Journey
from postroad.campaign.journey_facts import DatabaseFacts
from postroad.campaign.journey_nodes import BranchNode, UntilNode
from postroad.campaign.segment import PAGE, Segment
from postroad.printable import counted
from postroad.store.campaign import Campaign, steps_of
from postroad.store.engine import read
from postroad.store.planning import members_after

MAX_READ = 50_000
"""Recipients of the segment who are looked at: a statement for each condition and two thousand of them."""


@dataclass(kw_only=True)
class JourneyWays:
    """How many recipients reach each step, if no one exits and no field changes.

    Attributes:
        recipients: How many were looked at.
        reached: By step.
        matching: Of those who reach a condition, who meets it, by step.
        without_date: Of those who reach a `wait_until`, who lacks its date, by step.
    """

    recipients: int = 0
    reached: Counter[int] = field(default_factory=Counter)
    matching: Counter[int] = field(default_factory=Counter)
    without_date: Counter[int] = field(default_factory=Counter)


def check_ways(engine: sa.Engine, campaign: Campaign, segment: Segment) -> Iterator[PreflightFinding]:
    """Yield how many recipients would take which branch now, and how many lack a date. Nothing for other campaigns.

    Args:
        engine: The database.
        campaign: The campaign.
        segment: Its recipients.
    """
    if campaign.journey is None or campaign.id is None:
        return
    with read(engine) as connection:
        steps = steps_of(connection, campaign.id)
    journey = Journey(campaign, steps)
    ways = count_ways(engine, journey, segment)
    if not ways.recipients:
        return
    names = {step.id: step.name for step in steps}
    future = "" if CampaignEntry.of(campaign).at_launch else " Who will enter is not known: these are the members now."
    for node in journey.nodes.values():
        where = f"campaign {campaign.name}, step {names[node.step_id]}"
        reached = ways.reached[node.step_id]
        if isinstance(node, BranchNode):
            then, other = ways.matching[node.step_id], reached - ways.matching[node.step_id]
            what = f"of {counted(reached, 'recipient')}, {then:,} would take `then` now and {other:,} `else`"
            remedy = f"No action is required if that is what you expect.{future}"
            yield step_finding(PreflightCode.JOURNEY_WAYS, where, what, remedy)
        elif isinstance(node, UntilNode) and (lacking := ways.without_date[node.step_id]):
            has = "has" if lacking == 1 else "have"
            what = f"{lacking:,} of {counted(reached, 'recipient')} {has} no {node.date.text}: their journey ends there"
            remedy = (
                f"Import the field for them, or put the wait into a branch: if: {node.date.text} is not null.{future}"
            )
            yield step_finding(PreflightCode.JOURNEY_NO_DATE, where, what, remedy)


def count_ways(engine: sa.Engine, journey: Journey, segment: Segment) -> JourneyWays:
    """Count the ways of the first recipients of a segment through a journey, as if every wait was over.

    Args:
        engine: The database.
        journey: The journey.
        segment: Its recipients.

    Returns:
        The counts, of at most `MAX_READ` recipients.
    """
    ways, after = JourneyWays(), 0
    while ways.recipients < MAX_READ:
        with read(engine) as connection:
            members = members_after(connection, segment.audience_id, after, PAGE)
            ids = set(segment.meeting(connection, [member.recipient_id for member in members]))
            facts = DatabaseFacts(connection, journey.scope(segment.now))
            _walk(journey, ids, facts, ways)
        if not members:
            return ways
        ways.recipients += len(ids)
        after = members[-1].recipient_id
    return ways


def _walk(journey: Journey, entering: set[int], facts: DatabaseFacts, ways: JourneyWays) -> None:
    at: defaultdict[int | None, set[int]] = defaultdict(set)
    at[journey.first_id] = entering
    for node in journey.nodes.values():  # In reading order: a step that follows is later.
        here = at[node.step_id]
        if not here:
            continue
        ways.reached[node.step_id] += len(here)
        if isinstance(node, BranchNode):
            matching = facts.matching(node.condition, here)
            ways.matching[node.step_id] += len(matching)
            at[node.then_id] |= matching
            at[node.else_id] |= here - matching
        elif isinstance(node, UntilNode):
            dated = set(facts.dates(node.date, here))
            ways.without_date[node.step_id] += len(here - dated)
            at[node.next_id] |= dated
        else:
            at[node.next_id] |= here
