"""A rollout withholds the audience, draws it into shares, and lets go one after the other, never twice."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from postroad.campaign.launch_rules import LaunchRules
from postroad.campaign.plan import advance, launch
from postroad.campaign.status import finish_if_done, summary
from postroad.errors import StateError
from postroad.senders.rollout import RolloutHold, messages_needed, widen, widen_if_good
from postroad.store.campaign import CampaignState, find_campaign, set_state
from postroad.store.cohort import CohortEvidence, CohortPause, add_pause, lift_pause
from postroad.store.ending import cancel_waiting, end_suppressed
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.rollout import RolloutShare, shares_of
from postroad.store.suppression import SuppressionReason, suppress_now
from tests.campaign.project import CAMPAIGN, CONFIG, NOW, CampaignProject

S = TouchState
IN_SHARES = CAMPAIGN + "rollout: [1%, 10%, 100%]\n"
TWO_STEPS = CAMPAIGN + "  - wait: 1d\n  - email: again\n    subject: Again\n    text: hello.txt\nrollout: [25%, 100%]\n"
DOMAINS = ("gmail.com", "outlook.com", "example.com")


def people(number: int) -> list[str]:
    """Recipients of three providers and two list sources."""
    return [f"r{n}@{DOMAINS[n % 3]},,Reader,{'fair' if n % 5 else 'shop'}" for n in range(number)]


def fill(project: CampaignProject, number: int) -> None:
    project.fill(people(number), header="email,tz,name,source")


def shares(project: CampaignProject) -> list[RolloutShare]:
    with read(project.engine) as connection:
        return shares_of(connection, find_campaign(connection, "spring").id or 0)


def states(project: CampaignProject) -> Counter[str]:
    return Counter(state for _, _, state, _ in project.touches())


def by_stratum(project: CampaignProject) -> dict[int, Counter[tuple[str, str]]]:
    """People of each share by domain and source, as the ledger has them."""
    statement = sa.text(
        "SELECT touch.share, recipient.domain, recipient.address FROM touch "
        "JOIN recipient ON recipient.id = recipient_id"
    )
    found: dict[int, Counter[tuple[str, str]]] = {}
    with read(project.engine) as connection:
        for share, domain, address in connection.execute(statement):
            number = int(address[1:].partition("@")[0])
            found.setdefault(share, Counter())[domain, "fair" if number % 5 else "shop"] += 1
    return found


def settle(project: CampaignProject, state: TouchState, number: int, *, cause: str | None = None) -> None:
    """End so many planned touches of the first email as a worker would have."""
    chosen = sa.text(
        "SELECT touch.id FROM touch JOIN step ON step.id = touch.step_id WHERE touch.state = 'planned' "
        "AND step.position = 1 ORDER BY touch.id LIMIT :number"
    )
    at = str(NOW.replace(tzinfo=None)) if project.engine.dialect.name == "sqlite" else NOW
    with write(project.engine) as connection:
        ids = list(connection.execute(chosen, {"number": number}).scalars())
        assert len(ids) == number
        for touch_id in ids:
            values = {"id": touch_id, "state": state.value, "at": at, "uid": f"{touch_id}-{state}", "cause": cause}
            update = "UPDATE touch SET state = :state, settled_at = :at WHERE id = :id"
            connection.execute(sa.text(update), {name: values[name] for name in ("id", "state", "at")})
            event = (
                "INSERT INTO delivery_event (uid, touch_id, state, at, attempt, cause, blame) "
                "VALUES (:uid, :id, :state, :at, 1, :cause, 'recipient')"
            )
            connection.execute(sa.text(event), values)


def widened(project: CampaignProject, now: datetime = NOW) -> bool:
    """Make the part of a pass that widens, and the part that releases."""
    done = widen_if_good(project.engine, project.settings, "spring", now)
    advance(project.engine, "spring", now)
    return done


def hold(project: CampaignProject) -> tuple[str | None, str]:
    coming = next(share for share in shares(project) if share.opened_at is None)
    return coming.held_because, coming.held_why or ""


def test_a_launch_withholds_all_but_the_first_share(project: CampaignProject) -> None:
    fill(project, 300)
    project.apply(IN_SHARES)
    assert launch(project.engine, "spring", NOW).audience == 300
    assert states(project) == {"planned": 3, "withheld": 297}
    assert [(share.number, share.basis_points, share.people) for share in shares(project)] == [
        (1, 100, 3),
        (2, 1_000, 27),
        (3, 10_000, 270),
    ]
    first, *others = shares(project)
    assert (first.opened_at, first.opened_by) == (NOW, "the launch")
    assert all(share.opened_at is None for share in others)
    # 300 people: 60 shop and 240 fair, a third of each at each provider.
    assert by_stratum(project)[2].total() == 27
    for counts in by_stratum(project).values():
        proportion = counts.total() / 300
        for (_, source), number in counts.items():
            assert abs(number - proportion * (80 if source == "fair" else 20)) < 2
    seen = summary(project.engine, "spring")
    assert (seen.audience, seen.next_due_at, seen.rollout) == (300, NOW, tuple(shares(project)))
    assert not finish_if_done(project.engine, "spring", NOW)


def test_the_source_is_the_field_that_the_settings_name(project: CampaignProject) -> None:
    project.fill([f"r{n}@gmail.com,,{'x' if n % 2 else 'y'}" for n in range(100)], header="email,tz,list")
    project.apply(CAMPAIGN + "rollout: [10%, 100%]\n")
    launch(project.engine, "spring", NOW, rules=LaunchRules(source_field="list"))
    statement = sa.text("SELECT address FROM recipient JOIN touch ON recipient.id = recipient_id WHERE share = 1")
    with read(project.engine) as connection:
        numbers = [int(address[1:].partition("@")[0]) for address in connection.execute(statement).scalars()]
    assert Counter(number % 2 for number in numbers) == {0: 5, 1: 5}


def test_a_widening_waits_for_outcomes_and_then_lets_all_go(project: CampaignProject) -> None:
    fill(project, 1_000)
    project.apply(CAMPAIGN + "rollout: [10%, 100%]\n")
    launch(project.engine, "spring", NOW)
    assert not widened(project)
    assert hold(project)[0] == RolloutHold.OUTCOMES
    assert "the outcomes of 100 of 100 messages" in hold(project)[1]
    settle(project, S.ACCEPTED, 94)
    assert not widened(project)
    settle(project, S.ACCEPTED, 1)  # 5 % may be open: greylisted ones take long.
    later = NOW + timedelta(hours=2)
    assert widened(project, later)
    assert states(project) == {"accepted": 95, "planned": 905}
    assert {due for _, _, state, due in project.touches() if state == "planned"} == {NOW, later}
    assert [(share.opened_by, share.held_why) for share in shares(project)] == [("the launch", None), ("a pass", None)]
    assert not widened(project, later), "there is nothing left to let go"


def test_a_share_is_due_as_if_it_was_launched_when_it_was_let_go(project: CampaignProject) -> None:
    project.fill([f"r{n}@gmail.com,Europe/Berlin,Reader" for n in range(200)])
    project.apply(CAMPAIGN + "    at: '9:00'\nrollout: [50%, 100%]\n")
    launch(project.engine, "spring", NOW)  # 10:30 in Berlin
    first = {due for _, _, state, due in project.touches() if state == "planned"}
    assert [f"{due:%d %H:%M}" for due in first] == ["05 07:00"]
    settle(project, S.ACCEPTED, 100)
    assert widened(project, NOW + timedelta(days=3))
    assert {f"{due:%d %H:%M}" for _, _, state, due in project.touches() if state == "planned"} == {"08 07:00"}


def test_the_next_share_waits_for_the_time_between_two(project: CampaignProject) -> None:
    fill(project, 300)
    project.apply(CAMPAIGN + "rollout: {shares: [50%, 100%], after: 1h}\n")
    launch(project.engine, "spring", NOW)
    settle(project, S.ACCEPTED, 150)
    assert not widened(project, NOW + timedelta(minutes=59))
    assert hold(project) == (RolloutHold.TIME, "share 1 must be out until 2026-05-04 09:30 UTC")
    assert widened(project, NOW + timedelta(hours=1))


def test_bounces_hold_the_next_share_and_say_so(project: CampaignProject) -> None:
    fill(project, 1_000)
    project.apply(CAMPAIGN + "rollout: [10%, 100%]\n")
    launch(project.engine, "spring", NOW)
    settle(project, S.ACCEPTED, 80)
    settle(project, S.BOUNCED, 20, cause="no such mailbox")
    assert not widened(project)
    assert hold(project)[0] == RolloutHold.GUILTY
    assert states(project)["withheld"] == 900
    since = shares(project)[1].held_since
    assert not widened(project, NOW + timedelta(hours=1))
    assert shares(project)[1].held_since == since == NOW


def test_too_few_messages_decide_nothing_until_a_person_does(project: CampaignProject) -> None:
    needed = messages_needed(project.settings)
    assert needed == 48
    fill(project, needed - 1)
    project.apply(CAMPAIGN + "rollout: [50%, 100%]\n")
    launch(project.engine, "spring", NOW)
    settle(project, S.ACCEPTED, 24)
    assert not widened(project)
    assert hold(project) == (
        RolloutHold.UNDECIDED,
        "0 hard bounces of 24 messages decide nothing: 48 messages are needed",
    )
    assert widen(project.engine, "spring", 2, by="ada", now=NOW)
    assert not widen(project.engine, "spring", 2, by="bob", now=NOW)
    advance(project.engine, "spring", NOW)
    assert states(project) == {"accepted": 24, "planned": 23}
    assert shares(project)[1].opened_by == "ada"


@pytest.mark.parametrize(("people_of_first", "good"), [(47, False), (48, True)])
def test_the_test_needs_exactly_so_many(project: CampaignProject, people_of_first: int, good: bool) -> None:
    fill(project, 2 * people_of_first)
    project.apply(CAMPAIGN + "rollout: [50%, 100%]\n")
    launch(project.engine, "spring", NOW)
    settle(project, S.ACCEPTED, people_of_first)
    assert widened(project) is good


def test_the_outcomes_of_one_pass_are_tested_once(project: CampaignProject, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(project, 40)
    project.apply(CAMPAIGN + "rollout: [50%, 100%]\n")
    launch(project.engine, "spring", NOW)
    settle(project, S.ACCEPTED, 20)
    assert not widened(project)
    with monkeypatch.context() as patch:
        patch.setattr("postroad.senders.rollout.tallies", None)
        assert not widened(project)
    assert hold(project)[0] == RolloutHold.UNDECIDED
    project.configure(CONFIG + "[cohort_breaker.hard_bounces]\nmiss = 0.4\n")
    assert widened(project)  # With other settings they are tested again.


def test_a_paused_cohort_holds_the_next_share(project: CampaignProject) -> None:
    fill(project, 300)
    project.apply(CAMPAIGN + "rollout: [50%, 100%]\n")
    launch(project.engine, "spring", NOW)
    settle(project, S.ACCEPTED, 150)
    with write(project.engine) as connection:
        step = connection.execute(sa.text("SELECT id FROM step")).scalar_one()
        pause = {"step_id": step, "source": "fair", "provider": "google", "evidence": CohortEvidence.COMPLAINTS}
        add_pause(connection, CohortPause(**pause, reason="many", at=NOW))
    assert not widened(project)
    assert hold(project) == (RolloutHold.PAUSED, "the cohort of fair at google is paused: many")
    with write(project.engine) as connection:
        pause_id = connection.execute(sa.text("SELECT id FROM cohort_pause")).scalar_one()
        lift_pause(connection, pause_id, by="ada", why="clean", now=NOW)
    assert widened(project)


def test_only_a_running_campaign_is_widened(project: CampaignProject) -> None:
    fill(project, 300)
    project.apply(CAMPAIGN + "rollout: [50%, 100%]\n")
    with pytest.raises(StateError, match="is draft"):
        widen(project.engine, "spring", 1, by="ada", now=NOW)
    launch(project.engine, "spring", NOW)
    settle(project, S.ACCEPTED, 150)
    for number in (3, 0, -1):
        with pytest.raises(StateError, match=f"share {number} of campaign spring is not the next one"):
            widen(project.engine, "spring", number, by="ada", now=NOW)
    with write(project.engine) as connection:
        set_state(connection, find_campaign(connection, "spring").id or 0, CampaignState.PAUSED)
    assert not widened(project)
    with pytest.raises(StateError, match="is paused"):
        widen(project.engine, "spring", 2, by="ada", now=NOW)
    assert states(project) == {"accepted": 150, "withheld": 150}
    with write(project.engine) as connection:
        set_state(connection, find_campaign(connection, "spring").id or 0, CampaignState.CANCELLED)
        campaign_id = find_campaign(connection, "spring").id or 0
    assert cancel_waiting(project.engine, campaign_id, NOW) == 0
    assert states(project) == {"accepted": 150, "cancelled": 150}


def test_a_campaign_without_a_rollout_has_nothing_to_widen(project: CampaignProject) -> None:
    fill(project, 3)
    project.apply()
    launch(project.engine, "spring", NOW)
    assert not widened(project)
    with pytest.raises(StateError, match="has no rollout"):
        widen(project.engine, "spring", 1, by="ada", now=NOW)


def test_a_withheld_recipient_who_is_suppressed_gets_nothing(project: CampaignProject) -> None:
    fill(project, 300)
    project.apply(CAMPAIGN + "rollout: [50%, 100%]\n")
    suppress_now(project.engine, ["r0@gmail.com"], SuppressionReason.MANUAL, "test", NOW)
    launch(project.engine, "spring", NOW)
    assert sum(share.people for share in shares(project)) == 299, "the suppressed are in no share"
    withheld = [address for _, address, state, _ in project.touches() if state == "withheld"]
    suppress_now(project.engine, withheld[:5], SuppressionReason.MANUAL, "test", NOW)
    with read(project.engine) as connection:
        campaign_id = find_campaign(connection, "spring").id or 0
    assert end_suppressed(project.engine, campaign_id, NOW) == 5
    assert states(project)["suppressed"] == 6


def test_follow_ups_count_from_the_own_touch(project: CampaignProject) -> None:
    fill(project, 400)
    project.apply(TWO_STEPS)
    launch(project.engine, "spring", NOW)
    settle(project, S.ACCEPTED, 100)
    assert widened(project, NOW + timedelta(hours=1))
    again = [touch for touch in project.touches() if touch[0] == "again"]
    assert len(again) == 100
    assert {due for *_, due in again} == {NOW + timedelta(days=1)}
    assert states(project) == {"accepted": 100, "planned": 400}


def test_a_journey_that_begins_with_an_email_is_rolled_out(project: CampaignProject) -> None:
    fill(project, 300)
    project.apply(CAMPAIGN + "goal: \"event('paid')\"\nrollout: [50%, 100%]\n")
    assert launch(project.engine, "spring", NOW).audience == 300
    assert states(project) == {"planned": 150, "withheld": 150}
    settle(project, S.ACCEPTED, 150)
    assert widened(project)
    assert states(project) == {"accepted": 150, "planned": 150}
    journey = summary(project.engine, "spring").journey
    assert journey is not None
    assert (journey.enrolled, journey.active, journey.completed) == (300, 150, 150)


def test_the_rollout_of_a_launched_campaign_cannot_change(project: CampaignProject) -> None:
    fill(project, 30)
    project.apply(IN_SHARES)
    launch(project.engine, "spring", NOW)
    project.apply(IN_SHARES)
    with pytest.raises(StateError, match="its rollout cannot change"):
        project.apply(IN_SHARES.replace("10%", "20%"))
