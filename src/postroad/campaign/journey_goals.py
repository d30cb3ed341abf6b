"""Notices who reached the goal of a journey, and credits it to the variants that they got."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from postroad.campaign.journey_context import PassContext
from postroad.campaign.journey_facts import DatabaseFacts
from postroad.store.campaign import find_campaign, set_goal_cursor
from postroad.store.engine import read, write
from postroad.store.enrolments.changes import record_goals
from postroad.store.enrolments.pending import PAGE, enrolment_page
from postroad.store.variant import record_goals_of_enrolments, variant_tests

GOAL_PAGES = 10
"""Pages of enrolments that a pass looks at for the goal."""

TEST_PAGES = 40
"""Pages of enrolments that a pass looks at for the goal while the goal is to decide a winner."""


def notice_goals(context: PassContext) -> int:
    """Record who reached the goal, among the enrolments of the next pages.

    The goal is also looked at before every step. This finds it during a wait, and after the last step. Each pass looks
    at the recipients after those of the pass before.

    Returns:
        The number of recipients who reached it.
    """
    goal = context.journey.goal
    if goal is None:
        return 0
    with read(context.engine) as connection:
        begin = after = find_campaign(connection, context.name).goal_cursor
        tests = variant_tests(connection, context.journey.campaign_id) if context.journey.has_variants else {}
    reached = 0
    for _ in range(TEST_PAGES if any(test.decided_at is None for test in tests.values()) else GOAL_PAGES):
        with read(context.engine) as connection:
            page = enrolment_page(connection, context.journey.campaign_id, after=after)
            latest = {one.recipient_id: one for one in page}  # A goal counts for the last entry.
            open_ids = {one.recipient_id: one.id for one in latest.values() if not one.goal}
            facts = DatabaseFacts(connection, context.journey.scope(context.now))
            found = [open_ids[recipient_id] for recipient_id in facts.matching(goal, open_ids)]
        if found:
            with write(context.engine) as connection:
                reached += record_goals(connection, found, context.now)
                credit_variants(connection, context, found)
        after = page[-1].recipient_id if len(page) >= PAGE else 0
        if after == 0:
            break
    if after != begin:
        with write(context.engine) as connection:
            set_goal_cursor(connection, context.journey.campaign_id, after)
    return reached


def credit_variants(connection: sa.Connection, context: PassContext, enrolment_ids: Sequence[int]) -> None:
    """Record the goals of enrolments for the variants that their recipients got."""
    if context.journey.has_variants and enrolment_ids:
        record_goals_of_enrolments(connection, enrolment_ids, context.now)
