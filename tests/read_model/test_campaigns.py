"""A campaign's page: the parts sum to the audience, and each part has a list that sums to it."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.errors import StateError
from postroad.read_model.campaigns import (
    campaign_lines,
    campaign_parts,
    campaign_states,
    campaign_touches,
    campaign_traffic,
    journey_recipients,
)
from postroad.read_model.receivers import TrafficWindow
from postroad.store.campaign import Campaign, CampaignState
from postroad.store.engine import read, write
from postroad.store.enrolment import EnrolmentState, ExitReason
from postroad.store.ledger import TouchState
from postroad.store.traffic import fold_traffic
from tests.read_model.world import all_rows
from tests.store.effort import effort_of
from tests.store.large import DUE, add_large_campaign
from tests.store.outcomes import add_sent_touches, record_outcome
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

S = TouchState
SMALL, LARGE = 2_000, 20_000


def test_parts_sum_to_the_audience_and_each_has_a_list(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (first, second) = add_campaign(connection, name="spring", steps=({}, {}))
        add_campaign(connection, name="other")
        numbers = {state: n + 1 for n, state in enumerate(TouchState)}
        for state, number in numbers.items():
            for _ in range(number):
                recipient = add_recipient(connection)
                add_touch(connection, campaign, first, state, recipient_id=recipient)
                if state is S.ACCEPTED:
                    add_touch(connection, campaign, second, S.QUEUED, recipient_id=recipient)
    with read(engine) as connection:
        found = campaign_parts(connection, "spring")
        assert sum(part.recipients for part in found.parts) == found.summary.audience == sum(numbers.values())
        assert {part.touch for part in found.parts} == set(TouchState)
        for step in found.summary.steps:
            for state, number in step.counts.items():
                rows = all_rows(
                    lambda after, step=step, state=state: campaign_touches(  # type: ignore[misc]
                        connection, "spring", step=step.name, state=state, after=after, limit=2
                    )
                )
                assert len({row.id for row in rows}) == len(rows) == number
                assert {(row.state, row.step) for row in rows} <= {(state, step.name)}
        queued = all_rows(lambda after: campaign_touches(connection, "spring", state=S.QUEUED, after=after, limit=3))
        assert len(queued) == found.summary.counts[S.QUEUED] == numbers[S.QUEUED] + numbers[S.ACCEPTED]
        assert [row.step for row in queued] == ["step-1"] * numbers[S.QUEUED] + ["step-2"] * numbers[S.ACCEPTED]
        lines = {line.name: line.touches for line in campaign_lines(connection).rows}
    assert lines == {"spring": {state: n for state, n in found.summary.counts.items() if n}, "other": {}}


def test_an_unknown_campaign_or_step_is_named(engine: sa.Engine) -> None:
    with write(engine) as connection:
        add_campaign(connection, name="spring")
        with pytest.raises(StateError, match="'sprint'"):
            campaign_parts(connection, "sprint")
        with pytest.raises(StateError, match="there is no step of spring named 'step-9'"):
            campaign_touches(connection, "spring", step="step-9", state=S.QUEUED)


def test_parts_of_a_journey_sum_to_it_and_each_has_a_list(engine: sa.Engine) -> None:
    kinds = [
        (EnrolmentState.ACTIVE, None, 5),
        (EnrolmentState.COMPLETED, None, 3),
        (EnrolmentState.EXITED, ExitReason.EXIT, 2),
        (EnrolmentState.EXITED, ExitReason.REPLIED, 4),
    ]
    with write(engine) as connection:
        campaign, steps = add_campaign(connection, name="trial", steps=({}, {}))
        connection.execute(sa.text("UPDATE campaign SET journey = :journey"), {"journey": '{"entry": null}'})
        for state, why, number in kinds:
            for n in range(number):
                connection.execute(
                    sa.text(
                        "INSERT INTO enrolment (campaign_id, recipient_id, state, step_id, entered_at, since, why) "
                        f"VALUES (:campaign, :recipient, :state, :step, '{DUE}', '{DUE}', :why)"
                    ),
                    {
                        "campaign": campaign,
                        "recipient": add_recipient(connection),
                        "state": state.value,
                        "step": steps[n % 2],
                        "why": why,
                    },
                )
    with read(engine) as connection:
        found = campaign_parts(connection, "trial")
        assert [(part.enrolment, part.why, part.recipients) for part in found.parts] == kinds
        assert sum(part.recipients for part in found.parts) == found.summary.audience
        for part in found.parts:
            assert part.enrolment is not None
            rows = all_rows(
                lambda after, part=part: journey_recipients(  # type: ignore[misc]
                    connection, "trial", state=part.enrolment, why=part.why, after=after, limit=2
                )
            )
            assert len({row.id for row in rows}) == len(rows) == part.recipients
            assert {(row.state, row.why) for row in rows} == {(part.enrolment, part.why)}


def test_traffic_of_a_campaign_is_the_same_before_and_after_a_fold(engine: sa.Engine) -> None:
    with write(engine) as connection:
        add_sent_touches(connection, "two.example", 2)
        touches = add_sent_touches(connection, "one.example", 40)
        [name] = connection.execute(sa.text("SELECT name FROM campaign ORDER BY id DESC LIMIT 1")).scalars()
        for n, touch in enumerate(touches):
            record_outcome(connection, touch, S.ACCEPTED if n % 2 else S.DEFERRED, NOW - timedelta(hours=3 * n))
        before = campaign_traffic(connection, name, NOW, TrafficWindow.WEEK)
    assert sum(hour.accepted + hour.deferred for hour in before) == 40
    assert [hour.at for hour in before] == sorted({hour.at for hour in before})
    fold_traffic(engine, NOW, NOW - timedelta(days=1_000))
    with read(engine) as connection:
        assert campaign_traffic(connection, name, NOW, TrafficWindow.WEEK) == before


@pytest.mark.parametrize("state", [S.ACCEPTED, S.QUEUED, S.DEAD])
def test_a_list_costs_the_same_in_a_larger_campaign(engine: sa.Engine, state: TouchState) -> None:
    efforts = []
    with write(engine) as connection:
        for _ in range(40):  # So many that no plan reads all of them.
            add_campaign(connection)
    for number in (SMALL, LARGE):
        with write(engine) as connection:
            campaign, [step, _] = add_large_campaign(connection, number, S.ACCEPTED)
            if state is not S.ACCEPTED:  # Few, and all at the end.
                few = f"SELECT id FROM touch WHERE campaign_id = {campaign} ORDER BY id DESC LIMIT 100"
                connection.execute(sa.text(f"UPDATE touch SET state = '{state}' WHERE id IN ({few})"))
            connection.execute(sa.text("UPDATE campaign SET name = 'x' || id WHERE id <> :id"), {"id": campaign})
            connection.execute(sa.text("UPDATE campaign SET name = 'spring' WHERE id = :id"), {"id": campaign})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        with read(engine) as connection, effort_of(connection) as effort:
            page = campaign_touches(connection, "spring", state=state)
            assert len(campaign_touches(connection, "spring", state=state, after=page.next).rows) == 50
            campaign_parts(connection, "spring")
            campaign_lines(connection)
        efforts.append(effort.count)
        assert step
        with write(engine) as connection:
            connection.execute(sa.text(f"UPDATE campaign SET state = '{CampaignState.FINISHED}'"))
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 150)


def test_campaigns_are_listed_by_pages_of_the_newest_first(engine: sa.Engine) -> None:
    with write(engine) as connection:
        for number in range(7):
            state = CampaignState.DRAFT if number % 3 == 0 else CampaignState.RUNNING
            campaign, (step,) = add_campaign(connection, name=f"campaign-{number}", state=state)
            add_touch(connection, campaign, step, S.QUEUED)
    with read(engine) as connection:
        listed = {None: range(7), CampaignState.DRAFT: (0, 3, 6), CampaignState.PAUSED: ()}
        for only, numbers in listed.items():
            rows = all_rows(lambda after, only=only: campaign_lines(connection, state=only, after=after, limit=2))  # type: ignore[misc]
            assert [row.name for row in rows] == [f"campaign-{number}" for number in sorted(numbers, reverse=True)]
            assert all(row.touches == {S.QUEUED: 1} for row in rows)
        assert campaign_states(connection) == [CampaignState.DRAFT, CampaignState.RUNNING]


def add_copies(connection: sa.Connection, campaign: int, number: int) -> None:
    """Insert copies of a campaign, without steps."""
    columns = ", ".join(column.name for column in Campaign.__table__.c if column.name not in ("id", "name"))  # type: ignore[attr-defined]
    connection.execute(
        sa.text(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :number) "
            f"INSERT INTO campaign (name, {columns}) SELECT name || '-' || n, {columns} FROM campaign, numbers "
            "WHERE id = :campaign"
        ),
        {"number": number, "campaign": campaign},
    )


def test_a_page_of_campaigns_costs_the_same_among_more(engine: sa.Engine) -> None:
    efforts = []
    for number in (300, 3_000):
        with write(engine) as connection:
            add_copies(connection, add_campaign(connection, state=CampaignState.RUNNING)[0], number)
            add_campaign(connection, state=CampaignState.DRAFT)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        with read(engine) as connection, effort_of(connection) as effort:
            campaign_lines(connection)
            campaign_lines(connection, state=CampaignState.DRAFT)
            campaign_lines(connection, state=CampaignState.RUNNING)
            campaign_states(connection)
        efforts.append(effort.count)
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 150)
