"""A recipient costs as much in a large campaign as in a small one, on a database that knows nothing of either yet."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import launch
from postroad.store import ledger
from postroad.store.engine import write
from postroad.store.mail_domain import domains_to_look_up
from postroad.store.suppression import SuppressionReason, suppress
from tests.campaign.house import CAMPAIGN, NOW, House
from tests.store.effort import effort_of

SMALL, LARGE = 500, 4_000
BATCH = 50
ZONES = ("", "Europe/Berlin", "Asia/Kolkata")


def launched(house: House, recipients: int) -> int:
    """Launch a campaign to so many. Returns its id."""
    name = f"to-{recipients}"
    house.fill((f"r{n}@d{n % 7}.example,{ZONES[n % 3]},Ada" for n in range(recipients)), audience=name)
    campaign = house.apply(CAMPAIGN.replace("spring", name).replace("people", name))
    launch(house.engine, name, NOW)
    assert campaign.id is not None
    return campaign.id


def test_a_batch_costs_the_same_however_many_are_before_and_behind_it(house: House) -> None:
    campaign, cursor, efforts = launched(house, LARGE), 0, []
    with write(house.engine) as connection:
        for _ in range(LARGE // BATCH):
            with effort_of(connection) as effort:
                ahead = domains_to_look_up(connection, campaign, after_id=cursor, until=NOW, now=NOW, limit=BATCH)
                taken = ledger.take_due(connection, campaign, after_id=cursor, until=NOW, limit=BATCH)
            assert len(ahead) == 7
            assert len(taken) == BATCH
            cursor = max(taken)  # All are due at one instant.
            efforts.append(effort.count)
    assert max(efforts) <= 1.3 * min(efforts)


@pytest.mark.parametrize("suppressed", [[], ["r1@d1.example", "@d2.example", "nobody@else.example"]])
def test_the_suppressed_are_looked_for_once_and_not_for_each_recipient(house: House, suppressed: list[str]) -> None:
    efforts = []
    for recipients in (SMALL, LARGE):
        campaign = launched(house, recipients)
        with write(house.engine) as connection:
            suppress(connection, suppressed, SuppressionReason.MANUAL, "test", NOW)
            with effort_of(connection) as effort:
                ended = ledger.end_suppressed(connection, campaign, NOW)
            connection.execute(sa.text("DELETE FROM suppression"))  # The next launch is to find nothing.
        assert ended == (1 + len(range(2, recipients, 7)) if suppressed else 0)
        efforts.append(effort.count / recipients)
    assert efforts[1] <= 1.3 * efforts[0]
