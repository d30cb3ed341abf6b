"""Launch, advance, cancel and suppress work in short transactions, each of which may be the last before a crash."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from postroad.campaign import plan
from postroad.campaign.plan import advance, launch
from postroad.campaign.status import finish_if_done, summary
from postroad.errors import StateError
from postroad.operations.campaigns import _cancel
from postroad.store.campaign import CampaignState, find_campaign
from postroad.store.ending import complete_cancellations, end_suppressed
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.planning import STEP, plan_touches
from postroad.store.suppression import SuppressionReason, suppress_now
from tests.campaign.house import CAMPAIGN, NOW, House
from tests.store.effort import sqlite_effort_of

TWICE = CAMPAIGN + "  - email: again\n    subject: Again\n    text: hello.txt\n"
RECIPIENTS = 2 * STEP + STEP // 2  # three steps


class CrashError(Exception):
    """Stands for a process that is killed."""


def crash_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Let the planning of touches be interrupted after so many steps, between two transactions."""
    done = 0
    planned: Callable[..., int] = plan_touches

    def interrupted(*args: object) -> int:
        nonlocal done
        done += 1
        if done > calls:
            raise CrashError
        return planned(*args)

    monkeypatch.setattr(plan, "plan_touches", interrupted)


def applied(house: House, text: str = TWICE, recipients: int = RECIPIENTS) -> None:
    house.fill(f"r{n}@d{n % 7}.example,,Ada" for n in range(recipients))
    house.apply(text)


def accept_all(engine: sa.Engine) -> None:
    with write(engine) as connection:
        accepted = sa.text("UPDATE touch SET state = 'accepted', settled_at = :now WHERE state = 'planned'")
        connection.execute(accepted, {"now": f"{NOW:%Y-%m-%d %H:%M:%S.%f}"})


def state_of(engine: sa.Engine) -> CampaignState:
    with read(engine) as connection:
        return find_campaign(connection, "spring").state


def test_an_interrupted_launch_sends_nothing_and_is_continued(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    applied(house)
    with monkeypatch.context() as patch:
        crash_after(patch, 1)
        with pytest.raises(CrashError):
            launch(house.engine, "spring", NOW)
    assert state_of(house.engine) is CampaignState.DRAFT
    assert summary(house.engine, "spring").audience == STEP
    with pytest.raises(StateError):  # Its steps have touches, so they may not change.
        house.apply(TWICE.replace("Again", "Other"))

    launched = launch(house.engine, "spring", NOW.replace(hour=NOW.hour + 3))
    assert (launched.audience, launched.already) == (RECIPIENTS, False)
    assert {due_at for *_, due_at in house.touches()} == {NOW}
    assert state_of(house.engine) is CampaignState.RUNNING


def test_an_interrupted_launch_can_be_cancelled(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    applied(house)
    with monkeypatch.context() as patch:
        crash_after(patch, 1)
        with pytest.raises(CrashError):
            launch(house.engine, "spring", NOW)
    _cancel(house.engine, "spring", NOW)
    assert {state for _, _, state, _ in house.touches()} == {"cancelled"}
    with pytest.raises(StateError, match="was cancelled"):
        launch(house.engine, "spring", NOW)


def test_an_interrupted_advance_plans_the_rest_the_next_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    applied(house)
    launch(house.engine, "spring", NOW)
    accept_all(house.engine)
    with monkeypatch.context() as patch:
        crash_after(patch, 1)
        with pytest.raises(CrashError):
            advance(house.engine, "spring", NOW)
    assert not finish_if_done(house.engine, "spring", NOW)
    assert advance(house.engine, "spring", NOW) == RECIPIENTS - STEP
    assert advance(house.engine, "spring", NOW) == 0
    assert [step.touches for step in summary(house.engine, "spring").steps] == [RECIPIENTS, RECIPIENTS]
    accept_all(house.engine)
    assert finish_if_done(house.engine, "spring", NOW)


def test_a_campaign_is_not_finished_while_a_next_email_is_to_be_planned(house: House) -> None:
    applied(house, recipients=3)
    launch(house.engine, "spring", NOW)
    accept_all(house.engine)
    assert not finish_if_done(house.engine, "spring", NOW)


def test_an_interrupted_cancel_is_completed_by_maintenance(house: House) -> None:
    applied(house)
    launch(house.engine, "spring", NOW)
    with write(house.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = 'cancelled'"))
    assert complete_cancellations(house.engine, NOW) == 0  # None of them was on a queue.
    assert summary(house.engine, "spring").counts[TouchState.CANCELLED] == RECIPIENTS


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_advance_with_nothing_due_takes_no_lock_and_reads_the_same_in_any_ledger(house: House) -> None:
    applied(house, recipients=200)
    launch(house.engine, "spring", NOW)
    accept_all(house.engine)
    advance(house.engine, "spring", NOW)
    efforts = []
    for others in ("autumn", "winter"):
        # Whoever would write now waits for this, and fails.
        with sqlite_effort_of(house.engine) as effort, write(house.engine):
            assert advance(house.engine, "spring", NOW) == 0
            assert not finish_if_done(house.engine, "spring", NOW)
        efforts.append(effort.count)
        house.fill((f"s{n}@d{n % 7}.example,,Ada" for n in range(4_000)), audience=others)
        house.apply(TWICE.replace("spring", others).replace("people", others))
        launch(house.engine, others, NOW)
    assert efforts[1] <= efforts[0] + 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_suppressions_that_were_seen_are_not_read_again(house: House) -> None:
    applied(house, recipients=200)
    launch(house.engine, "spring", NOW)
    addresses = [f"r{n}@d{n % 7}.example" for n in range(150)] + [f"x{n}@y.example" for n in range(4_000)]
    suppress_now(house.engine, addresses, SuppressionReason.MANUAL, "test", NOW)
    with read(house.engine) as connection:
        campaign_id = find_campaign(connection, "spring").id or 0
    with sqlite_effort_of(house.engine) as first:
        assert end_suppressed(house.engine, campaign_id, NOW) == 150
    with sqlite_effort_of(house.engine) as second:
        assert end_suppressed(house.engine, campaign_id, NOW) == 0
    assert second.count < first.count / 50
