"""Launch, advance, cancel and suppress work in short transactions, each of which may be the last before a crash."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from postroad.campaign import plan
from postroad.campaign.plan import advance, launch
from postroad.campaign.status import finish_if_done, summary
from postroad.errors import StateError
from postroad.operations.campaigns import cancel_in_ledger
from postroad.store.campaign import CampaignState, find_campaign
from postroad.store.ending import complete_cancellations, end_suppressed
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.planning import STEP
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.touches.planning import plan_touches
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject
from tests.store.effort import sqlite_effort_of

TWICE = CAMPAIGN + "  - email: again\n    subject: Again\n    text: hello.txt\n"
RECIPIENTS = 2 * STEP + STEP // 2  # three steps


class CrashError(Exception):
    """Stands for a process that is killed."""


def crash_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Interrupt the planning of touches after a number of steps, between two transactions."""
    done = 0
    planned: Callable[..., int] = plan_touches

    def interrupted(*args: object) -> int:
        nonlocal done
        done += 1
        if done > calls:
            raise CrashError
        return planned(*args)

    monkeypatch.setattr(plan, "plan_touches", interrupted)


def applied(project: CampaignProject, text: str = TWICE, recipients: int = RECIPIENTS) -> None:
    project.fill(f"r{n}@d{n % 7}.example,,Ada" for n in range(recipients))
    project.apply(text)


def accept_all(engine: sa.Engine) -> None:
    with write(engine) as connection:
        accepted = sa.text("UPDATE touch SET state = 'accepted', settled_at = :now WHERE state = 'planned'")
        connection.execute(accepted, {"now": f"{NOW:%Y-%m-%d %H:%M:%S.%f}"})


def state_of(engine: sa.Engine) -> CampaignState:
    with read(engine) as connection:
        return find_campaign(connection, "spring").state


def test_an_interrupted_launch_sends_nothing_and_is_resumed(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied(project)
    with monkeypatch.context() as patch:
        crash_after(patch, 1)
        with pytest.raises(CrashError):
            launch(project.engine, "spring", NOW)
    assert state_of(project.engine) is CampaignState.DRAFT
    assert summary(project.engine, "spring").audience == STEP
    with pytest.raises(StateError):  # Its steps have touches, so they must not change.
        project.apply(TWICE.replace("Again", "Other"))

    launched = launch(project.engine, "spring", NOW.replace(hour=NOW.hour + 3))
    assert (launched.audience, launched.already) == (RECIPIENTS, False)
    assert {due_at for *_, due_at in project.touches()} == {NOW}
    assert state_of(project.engine) is CampaignState.RUNNING


def test_an_interrupted_launch_can_be_cancelled(project: CampaignProject, monkeypatch: pytest.MonkeyPatch) -> None:
    applied(project)
    with monkeypatch.context() as patch:
        crash_after(patch, 1)
        with pytest.raises(CrashError):
            launch(project.engine, "spring", NOW)
    cancel_in_ledger(project.engine, "spring", NOW)
    assert {state for _, _, state, _ in project.touches()} == {"cancelled"}
    with pytest.raises(StateError, match="was cancelled"):
        launch(project.engine, "spring", NOW)


def test_an_interrupted_advance_is_resumed(project: CampaignProject, monkeypatch: pytest.MonkeyPatch) -> None:
    applied(project)
    launch(project.engine, "spring", NOW)
    accept_all(project.engine)
    with monkeypatch.context() as patch:
        crash_after(patch, 1)
        with pytest.raises(CrashError):
            advance(project.engine, "spring", NOW)
    assert not finish_if_done(project.engine, "spring", NOW)
    assert advance(project.engine, "spring", NOW) == RECIPIENTS - STEP
    assert advance(project.engine, "spring", NOW) == 0
    assert [step.touches for step in summary(project.engine, "spring").steps] == [RECIPIENTS, RECIPIENTS]
    accept_all(project.engine)
    assert finish_if_done(project.engine, "spring", NOW)


def test_a_campaign_with_follow_ups_to_plan_is_not_finished(project: CampaignProject) -> None:
    applied(project, recipients=3)
    launch(project.engine, "spring", NOW)
    accept_all(project.engine)
    assert not finish_if_done(project.engine, "spring", NOW)


def test_an_interrupted_cancel_is_completed_by_maintenance(project: CampaignProject) -> None:
    applied(project)
    launch(project.engine, "spring", NOW)
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = 'cancelled'"))
    assert complete_cancellations(project.engine, NOW) == 0  # None of them was on a queue.
    assert summary(project.engine, "spring").counts[TouchState.CANCELLED] == RECIPIENTS


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_idle_advance_takes_no_lock_and_reads_a_bounded_amount(project: CampaignProject) -> None:
    applied(project, recipients=200)
    launch(project.engine, "spring", NOW)
    accept_all(project.engine)
    advance(project.engine, "spring", NOW)
    efforts = []
    for others in ("autumn", "winter"):
        # Any other writer would wait for this transaction, and fail.
        with sqlite_effort_of(project.engine) as effort, write(project.engine):
            assert advance(project.engine, "spring", NOW) == 0
            assert not finish_if_done(project.engine, "spring", NOW)
        efforts.append(effort.count)
        project.fill((f"s{n}@d{n % 7}.example,,Ada" for n in range(4_000)), audience=others)
        project.apply(TWICE.replace("spring", others).replace("people", others))
        launch(project.engine, others, NOW)
    assert efforts[1] <= efforts[0] + 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_processed_suppressions_are_not_read_again(project: CampaignProject) -> None:
    applied(project, recipients=200)
    launch(project.engine, "spring", NOW)
    addresses = [f"r{n}@d{n % 7}.example" for n in range(150)] + [f"x{n}@y.example" for n in range(4_000)]
    suppress_now(project.engine, addresses, SuppressionReason.MANUAL, "test", NOW)
    with read(project.engine) as connection:
        campaign_id = find_campaign(connection, "spring").id or 0
    with sqlite_effort_of(project.engine) as first:
        assert end_suppressed(project.engine, campaign_id, NOW) == 150
    with sqlite_effort_of(project.engine) as second:
        assert end_suppressed(project.engine, campaign_id, NOW) == 0
    assert second.count < first.count / 50
