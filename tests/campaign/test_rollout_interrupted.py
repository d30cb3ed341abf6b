"""A launch with a rollout that is killed draws the same again, and two passes at once widen it once."""

from __future__ import annotations

import itertools
import threading
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.campaign import plan, rollout
from postroad.campaign.plan import advance, launch
from postroad.senders.rollout import widen, widen_if_good
from postroad.store import rollout as store
from postroad.store.cohort import CohortEvidence, CohortPause, add_pause
from postroad.store.engine import write
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject
from tests.campaign.test_rollout import S, by_stratum, fill, settle, shares, states


class CrashError(Exception):
    """The process is killed."""


@pytest.mark.parametrize("place", range(1, 15))
def test_a_launch_that_was_killed_anywhere_draws_the_same(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Every transaction that writes may be the last one before a crash."""
    monkeypatch.setattr(rollout, "DRAW_STEP", 20)
    monkeypatch.setattr(store, "STEP", 20)
    monkeypatch.setattr("postroad.store.planning.STEP", 40)
    fill(project, 120)
    project.apply(CAMPAIGN + "rollout: [10%, 50%, 100%]\n")
    real, left = write, itertools.count(place, -1)

    def dying(engine: sa.Engine):  # type: ignore[no-untyped-def]
        if next(left) <= 0:  # The first transaction begins the launch.
            raise CrashError
        return real(engine)

    for module in (plan, rollout):
        monkeypatch.setattr(module, "write", dying)
    try:
        launch(project.engine, "spring", NOW)
    except CrashError:
        for module in (plan, rollout):
            monkeypatch.setattr(module, "write", real)
        launch(project.engine, "spring", NOW + timedelta(minutes=5))
    assert [share.people for share in shares(project)] == [12, 48, 60]
    assert states(project) == {"planned": 12, "withheld": 108}
    found = {number: counts.total() for number, counts in by_stratum(project).items()}
    assert found == {1: 12, 2: 48, 3: 60}
    assert {due for _, _, state, due in project.touches() if state == "planned"} == {NOW}


def test_a_cohort_that_is_paused_after_the_test_holds_the_share(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder pauses it between the test of a pass and the transaction that lets the share go."""
    fill(project, 300)
    project.apply(CAMPAIGN + "rollout: [50%, 100%]\n")
    launch(project.engine, "spring", NOW)
    settle(project, S.ACCEPTED, 150)

    def paused_before(engine: sa.Engine) -> AbstractContextManager[sa.Connection]:
        with write(engine) as connection:
            step = connection.execute(sa.text("SELECT id FROM step")).scalar_one()
            pause = {"step_id": step, "source": "fair", "provider": "google", "evidence": CohortEvidence.COMPLAINTS}
            add_pause(connection, CohortPause(**pause, reason="many", at=NOW))
        return write(engine)

    with monkeypatch.context() as patch:
        patch.setattr("postroad.senders.rollout.write", paused_before)
        assert not widen_if_good(project.engine, project.settings, "spring", NOW)
    assert [share.opened_at for share in shares(project)] == [NOW, None]


def test_two_passes_at_once_let_a_share_go_once(project: CampaignProject) -> None:
    fill(project, 300)
    project.apply(CAMPAIGN + "rollout: [50%, 100%]\n")
    launch(project.engine, "spring", NOW)
    settle(project, S.ACCEPTED, 150)
    barrier, done = threading.Barrier(3), []

    def run(by: str | None) -> None:
        barrier.wait()
        if by is None:
            done.append(widen_if_good(project.engine, project.settings, "spring", NOW))
        else:
            done.append(widen(project.engine, "spring", 2, by=by, now=NOW))
        advance(project.engine, "spring", NOW)

    threads = [threading.Thread(target=run, args=(by,)) for by in (None, None, "ada")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False, False, True]
    assert states(project) == {"accepted": 150, "planned": 150}
