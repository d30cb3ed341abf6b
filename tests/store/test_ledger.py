"""The ledger: which touch moves where, as a table of every state it can be in."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from itertools import product
from threading import Thread

import pytest
import sqlalchemy as sa

from postroad.store import ledger
from postroad.store.campaign import CampaignState, find_campaign
from postroad.store.ending import cancel_waiting, end_suppressed
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.touch_count import counts_by_step
from postroad.store.touches.sending import Claim, admit, mark_queued, mark_unknown, rejected_claims, requeue_dead
from tests.postgresql import wait_until_blocked
from tests.store.rows import (
    NOW,
    add_campaign,
    add_recipient,
    add_touch,
    suppress_recipient,
    touch_row,
)

CLAIM = 1_790_000_000_000_005
"""Tokens are microseconds: they need more than 32 bits."""
WAITING = {TouchState.PLANNED, TouchState.QUEUED, TouchState.DEFERRED}
UNSENT = WAITING | {TouchState.WITHHELD, TouchState.AWAITING}
LIVE = UNSENT | {TouchState.SENDING}


def may_be_sent(state: TouchState, ended: tuple[int, ...], campaign: CampaignState, suppressed: bool) -> bool:
    """What `admit` must allow, stated independently."""
    if suppressed or campaign is not CampaignState.RUNNING:
        return False
    return state in WAITING or (state in (TouchState.SENDING, TouchState.UNKNOWN) and CLAIM in ended)


def test_admit_lets_on_the_wire_what_may_be_sent_and_nothing_else(engine: sa.Engine) -> None:
    """Every state and its campaign's, suppressed or not, by claims that know or do not know how the last one ended."""
    expected: dict[int, bool] = {}
    facts: dict[int, tuple[TouchState, CampaignState, bool]] = {}
    claims: list[Claim] = []
    with write(engine) as connection:
        for campaign_state in CampaignState:
            campaign, (step,) = add_campaign(connection, state=campaign_state)
            for state, ended, suppressed in product(TouchState, ((), (CLAIM - 1,), (CLAIM - 1, CLAIM)), (False, True)):
                recipient = add_recipient(connection)
                if suppressed:
                    suppress_recipient(connection, recipient)
                touch = add_touch(connection, campaign, step, state, recipient_id=recipient, claim=CLAIM)
                claims.append(Claim(touch, CLAIM + 1, ended))
                facts[touch] = (state, campaign_state, suppressed)
                expected[touch] = may_be_sent(state, ended, campaign_state, suppressed)
    with write(engine) as connection:
        admitted = admit(connection, claims)
        why = rejected_claims(connection, sorted(expected.keys() - admitted))
    assert {touch: touch in admitted for touch in expected} == expected
    assert len(admitted) == 3 * len(WAITING) + 2

    with read(engine) as connection:
        for touch, token, *_ in claims:
            row = touch_row(connection, touch)
            state, campaign_state, suppressed = facts[touch]
            if touch in admitted:
                assert (row.state, row.claim, row.next_at) == (TouchState.SENDING, token, None)
            else:
                assert (row.state, row.claim) == (state, CLAIM)
                claim = why[touch]
                assert (claim.state, claim.claim, claim.campaign_state) == (state, CLAIM, campaign_state)
                assert bool(claim.suppressed) is suppressed


def test_admit_asked_again_says_no_until_the_claim_is_known_to_have_ended(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        touch = add_touch(connection, campaign, step, TouchState.QUEUED)
        assert admit(connection, [Claim(touch, 1)]) == {touch}
        assert admit(connection, [Claim(touch, 1)]) == set()
        assert admit(connection, [Claim(touch, 2)]) == set()
        assert admit(connection, [Claim(touch, 3, (2,))]) == set(), "it says nothing of claim 1"
        assert admit(connection, [Claim(touch, 4, (1, 2))]) == {touch}


def test_a_touch_that_is_not_in_the_ledger_is_neither_admitted_nor_explained(engine: sa.Engine) -> None:
    with write(engine) as connection:
        assert admit(connection, [Claim(987_654_321_012, 1)]) == set()
        assert rejected_claims(connection, [987_654_321_012]) == {}
        assert admit(connection, []) == set()
        assert rejected_claims(connection, []) == {}


@pytest.mark.postgresql
def test_two_claims_of_one_touch_at_once_are_admitted_once(postgresql_engine: sa.Engine) -> None:
    with write(postgresql_engine) as connection:
        campaign, (step,) = add_campaign(connection)
        touch = add_touch(connection, campaign, step, TouchState.QUEUED)
    admitted: list[set[int]] = []

    def second() -> None:
        with write(postgresql_engine) as connection:
            admitted.append(admit(connection, [Claim(touch, 1)]))

    with write(postgresql_engine) as connection:
        admitted.append(admit(connection, [Claim(touch, 1)]))
        thread = Thread(target=second)
        thread.start()
        wait_until_blocked(postgresql_engine)
    thread.join()
    assert admitted == [{touch}, set()]


def test_due_touches_come_in_order_and_no_more_than_asked(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        other, (other_step,) = add_campaign(connection)
        minute = timedelta(minutes=1)
        # Two at the same time; due in the opposite order to their ids but for those, so that the order is seen.
        touches = [
            add_touch(connection, campaign, step, TouchState.PLANNED, due_at=NOW - (n // 2) * minute) for n in range(6)
        ]
        first, second, third, fourth, fifth, sixth = touches[4], touches[5], touches[2], touches[3], *touches[:2]
        add_touch(connection, campaign, step, TouchState.PLANNED, due_at=NOW + timedelta(microseconds=1))
        add_touch(connection, other, other_step, TouchState.PLANNED)
        for state in set(TouchState) - {TouchState.PLANNED}:
            add_touch(connection, campaign, step, state)
    with read(engine) as connection:
        due = partial(ledger.due_touches, connection, campaign, until=NOW)
        assert due(after_id=first, limit=3) == [second, third, fourth]
        assert due(after_id=fourth, limit=3) == [fifth, sixth]
        assert due(after_id=0, limit=10) == [first, second, third, fourth, fifth, sixth]


def test_mark_queued_moves_what_is_still_planned(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        touches = {state: add_touch(connection, campaign, step, state) for state in TouchState}
        other = add_touch(connection, campaign, step, TouchState.PLANNED)
        assert mark_queued(connection, list(touches.values())) == 1
        after = states_after(connection, touches)
        assert after == {**{state: state for state in TouchState}, TouchState.PLANNED: TouchState.QUEUED}
        assert touch_row(connection, other).state is TouchState.PLANNED


def states_after(connection: sa.Connection, touches: dict[TouchState, int]) -> dict[TouchState, TouchState]:
    return {before: touch_row(connection, touch).state for before, touch in touches.items()}


def test_end_suppressed_ends_what_waits_for_suppressed_recipients(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        touches, bystanders = {}, {}
        for state in TouchState:
            recipient = add_recipient(connection)
            suppress_recipient(connection, recipient)
            touches[state] = add_touch(connection, campaign, step, state, recipient_id=recipient)
            bystanders[state] = add_touch(connection, campaign, step, state)
    assert end_suppressed(engine, campaign, NOW) == len(UNSENT)
    with read(engine) as connection:
        after = states_after(connection, touches)
        assert after == {state: TouchState.SUPPRESSED if state in UNSENT else state for state in TouchState}
        assert states_after(connection, bystanders) == {state: state for state in TouchState}
        assert touch_row(connection, touches[TouchState.PLANNED]).settled_at == NOW
    assert end_suppressed(engine, campaign, NOW) == 0


def test_end_suppressed_finds_what_was_suppressed_since(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        recipients = [add_recipient(connection) for _ in range(2)]
        touches = [add_touch(connection, campaign, step, TouchState.QUEUED, recipient_id=id_) for id_ in recipients]
    for recipient, touch in zip(recipients, touches, strict=True):
        with write(engine) as connection:
            suppress_recipient(connection, recipient)
        assert end_suppressed(engine, campaign, NOW) == 1
        assert end_suppressed(engine, campaign, NOW) == 0
        with read(engine) as connection:
            assert touch_row(connection, touch).state is TouchState.SUPPRESSED


def test_cancel_waiting_ends_what_is_not_on_the_wire(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        other, (other_step,) = add_campaign(connection)
        touches = {state: add_touch(connection, campaign, step, state) for state in TouchState}
        bystander = add_touch(connection, other, other_step, TouchState.QUEUED)
    assert cancel_waiting(engine, campaign, NOW) == len(WAITING) - 1  # One is only planned.
    assert cancel_waiting(engine, campaign, NOW) == 0
    with read(engine) as connection:
        after = states_after(connection, touches)
        assert after == {state: TouchState.CANCELLED if state in UNSENT else state for state in TouchState}
        assert touch_row(connection, touches[TouchState.QUEUED]).settled_at == NOW
        assert touch_row(connection, bystander).state is TouchState.QUEUED


def test_mark_unknown_moves_what_was_on_the_wire(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        touches = {state: add_touch(connection, campaign, step, state) for state in TouchState}
        assert mark_unknown(connection, list(touches.values()), NOW) == 1
        after = states_after(connection, touches)
        assert after == {s: TouchState.UNKNOWN if s is TouchState.SENDING else s for s in TouchState}
        row = touch_row(connection, touches[TouchState.SENDING])
        assert row.settled_at == NOW
        assert row.reply == "the queue was lost while it was on the wire"
        assert mark_unknown(connection, [], NOW) == 0


def test_requeue_dead_queues_what_is_dead_or_expired(engine: sa.Engine) -> None:
    dead = {TouchState.DEAD, TouchState.EXPIRED}
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        touches = {state: add_touch(connection, campaign, step, state, settled_at=NOW) for state in TouchState}
        assert requeue_dead(connection, list(touches.values())).keys() == {touches[state] for state in dead}
        after = states_after(connection, touches)
        assert after == {state: TouchState.QUEUED if state in dead else state for state in TouchState}
        assert touch_row(connection, touches[TouchState.DEAD]).settled_at is None
        assert touch_row(connection, touches[TouchState.ACCEPTED]).settled_at == NOW
        assert requeue_dead(connection, list(touches.values())) == {}


def test_requeue_dead_reopens_only_a_finished_campaign(engine: sa.Engine) -> None:
    with write(engine) as connection:
        dead = []
        for state in (CampaignState.FINISHED, CampaignState.CANCELLED):
            campaign, (step,) = add_campaign(connection, name=state.value, state=state)
            dead.append(add_touch(connection, campaign, step, TouchState.DEAD, settled_at=NOW))
        assert requeue_dead(connection, dead) == {dead[0]: "finished"}
        assert find_campaign(connection, "finished").state is CampaignState.RUNNING
        assert find_campaign(connection, "cancelled").state is CampaignState.CANCELLED
        assert touch_row(connection, dead[1]).state is TouchState.DEAD


def test_counts_by_step_count_each_state_of_each_step(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (one, two) = add_campaign(connection, steps=({}, {}))
        other, (other_step,) = add_campaign(connection)
        for n, state in enumerate(TouchState, start=1):
            for _ in range(n):
                add_touch(connection, campaign, one, state)
        add_touch(connection, campaign, two, TouchState.PLANNED)
        add_touch(connection, other, other_step, TouchState.PLANNED)
        counts = counts_by_step(connection, campaign)
    assert counts == {one: {s: n for n, s in enumerate(TouchState, start=1)}, two: {TouchState.PLANNED: 1}}


def test_a_recipient_gets_a_step_once(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        recipient = add_recipient(connection)
        add_touch(connection, campaign, step, TouchState.ACCEPTED, recipient_id=recipient)
    with pytest.raises(sa.exc.IntegrityError), write(engine) as connection:
        add_touch(connection, campaign, step, TouchState.PLANNED, recipient_id=recipient)


def test_ended_is_whatever_is_not_live() -> None:
    assert {state for state in TouchState if not state.ended} == LIVE == set(ledger.LIVE)
    assert set(ledger.WAITING) == WAITING
    assert set(ledger.UNSENT) == UNSENT
