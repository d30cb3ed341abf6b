"""The cost of a recipient does not depend on the size of the campaign, even without database statistics."""

from __future__ import annotations

from zoneinfo import available_timezones

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import advance, launch
from postroad.store import ledger
from postroad.store.engine import write
from postroad.store.mail_domain import domains_to_look_up
from postroad.store.touches.sending import mark_queued
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject
from tests.store.effort import effort_of, sqlite_effort_of

SMALL, LARGE = 500, 4_000
BATCH = 50
ZONES = sorted(zone for zone in available_timezones() if zone.startswith("Europe/"))[:40]
TWICE = CAMPAIGN + "  - email: again\n    subject: Again\n    text: hello.txt\n"


def applied(project: CampaignProject, recipients: int, *, zones: int = 3) -> int:
    """Apply a campaign to this many recipients in this many zones. Returns its id."""
    name = f"to-{recipients}-{zones}"
    project.fill((f"r{n}@d{n % 7}.example,{ZONES[n % zones]},Ada" for n in range(recipients)), audience=name)
    campaign = project.apply(TWICE.replace("spring", name).replace("people", name))
    assert campaign.id is not None
    return campaign.id


def launched(project: CampaignProject, recipients: int) -> int:
    campaign = applied(project, recipients)
    launch(project.engine, f"to-{recipients}-3", NOW)
    return campaign


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_planning_cost_does_not_depend_on_zones_and_minutes(project: CampaignProject) -> None:
    launches, advances = [], []
    for zones in (1, len(ZONES)):
        campaign = applied(project, SMALL, zones=zones)
        name = f"to-{SMALL}-{zones}"
        with sqlite_effort_of(project.engine) as effort:
            assert launch(project.engine, name, NOW).audience == SMALL
        launches.append(effort.count)
        with write(project.engine) as connection:
            accepted = sa.text(
                "UPDATE touch SET state = 'accepted', settled_at = datetime(:now, '+' || (id % :zones) || ' minutes') "
                "|| '.000000' WHERE campaign_id = :id"
            )
            connection.execute(accepted, {"now": NOW.isoformat(), "zones": zones, "id": campaign})
        with sqlite_effort_of(project.engine) as effort:
            assert advance(project.engine, name, NOW) == SMALL
        advances.append(effort.count)
    assert launches[1] <= 1.5 * launches[0]
    assert advances[1] <= 1.5 * advances[0]


def test_the_cost_of_a_batch_does_not_depend_on_its_position(project: CampaignProject) -> None:
    campaign, cursor, efforts = launched(project, LARGE), 0, []
    with write(project.engine) as connection:
        for _ in range(LARGE // BATCH):
            with effort_of(connection) as effort:
                ahead = domains_to_look_up(connection, campaign, after_id=cursor, until=NOW, now=NOW, limit=BATCH)
                due = ledger.due_touches(connection, campaign, after_id=cursor, until=NOW, limit=BATCH)
                mark_queued(connection, due)
            assert len(ahead) == 7
            assert len(due) == BATCH
            cursor = max(due)  # All are due at the same time.
            efforts.append(effort.count)
    assert max(efforts) <= 1.3 * min(efforts)
