"""A recipient costs as much in a large campaign as in a small one, on a database that knows nothing of either yet."""

from __future__ import annotations

from zoneinfo import available_timezones

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import advance, launch
from postroad.store import ledger
from postroad.store.engine import write
from postroad.store.mail_domain import domains_to_look_up
from tests.campaign.house import CAMPAIGN, NOW, House
from tests.store.effort import effort_of, sqlite_effort_of

SMALL, LARGE = 500, 4_000
BATCH = 50
ZONES = sorted(zone for zone in available_timezones() if zone.startswith("Europe/"))[:40]
TWICE = CAMPAIGN + "  - email: again\n    subject: Again\n    text: hello.txt\n"


def applied(house: House, recipients: int, *, zones: int = 3) -> int:
    """Apply a campaign to so many, in so many zones; its name says both. Returns its id."""
    name = f"to-{recipients}-{zones}"
    house.fill((f"r{n}@d{n % 7}.example,{ZONES[n % zones]},Ada" for n in range(recipients)), audience=name)
    campaign = house.apply(TWICE.replace("spring", name).replace("people", name))
    assert campaign.id is not None
    return campaign.id


def launched(house: House, recipients: int) -> int:
    campaign = applied(house, recipients)
    launch(house.engine, f"to-{recipients}-3", NOW)
    return campaign


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_planning_costs_the_same_in_however_many_zones_and_minutes(house: House) -> None:
    launches, advances = [], []
    for zones in (1, len(ZONES)):
        campaign = applied(house, SMALL, zones=zones)
        name = f"to-{SMALL}-{zones}"
        with sqlite_effort_of(house.engine) as effort:
            assert launch(house.engine, name, NOW).audience == SMALL
        launches.append(effort.count)
        with write(house.engine) as connection:
            accepted = sa.text(
                "UPDATE touch SET state = 'accepted', settled_at = datetime(:now, '+' || (id % :zones) || ' minutes') "
                "|| '.000000' WHERE campaign_id = :id"
            )
            connection.execute(accepted, {"now": NOW.isoformat(), "zones": zones, "id": campaign})
        with sqlite_effort_of(house.engine) as effort:
            assert advance(house.engine, name, NOW) == SMALL
        advances.append(effort.count)
    assert launches[1] <= 1.5 * launches[0]
    assert advances[1] <= 1.5 * advances[0]


def test_a_batch_costs_the_same_however_many_are_before_and_behind_it(house: House) -> None:
    campaign, cursor, efforts = launched(house, LARGE), 0, []
    with write(house.engine) as connection:
        for _ in range(LARGE // BATCH):
            with effort_of(connection) as effort:
                ahead = domains_to_look_up(connection, campaign, after_id=cursor, until=NOW, now=NOW, limit=BATCH)
                due = ledger.due_touches(connection, campaign, after_id=cursor, until=NOW, limit=BATCH)
                ledger.mark_queued(connection, due)
            assert len(ahead) == 7
            assert len(due) == BATCH
            cursor = max(due)  # All are due at one instant.
            efforts.append(effort.count)
    assert max(efforts) <= 1.3 * min(efforts)
