"""A message that is accepted after its campaign finished: the campaign runs again until the next steps are taken."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import advance, launch
from postroad.campaign.status import finish_if_done, reopen_late, running_campaigns
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.touches.results import record_returned
from tests.campaign.journeys import settle
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject

SEQUEL = "  - wait: 2d\n  - email: again\n    subject: Again\n    text: hello.txt\n"


@pytest.mark.parametrize("text", [CAMPAIGN + SEQUEL, CAMPAIGN + SEQUEL + "goal: \"plan = 'paid'\"\n"])
def test_the_next_email_follows_a_late_acceptance(project: CampaignProject, text: str) -> None:
    project.fill(["a@example.com,,A", "b@example.com,,B"])
    project.apply(text)
    launch(project.engine, "spring", NOW)
    settle(project, "hello", TouchState.UNKNOWN)
    advance(project.engine, "spring", NOW)
    assert finish_if_done(project.engine, "spring", NOW)
    assert reopen_late(project.engine) == []
    with write(project.engine) as connection:
        touch = connection.execute(sa.text("SELECT min(id) FROM touch")).scalar_one()
        assert record_returned(connection, touch, TouchState.ACCEPTED, "delivered", NOW)
    assert running_campaigns(project.engine) == ["spring"]
    advance(project.engine, "spring", NOW)
    assert not finish_if_done(project.engine, "spring", NOW)
    assert reopen_late(project.engine) == []


def test_a_late_acceptance_of_the_last_email_changes_nothing(project: CampaignProject) -> None:
    project.fill(["a@example.com,,A"])
    project.apply()
    launch(project.engine, "spring", NOW)
    settle(project, "hello", TouchState.UNKNOWN)
    assert finish_if_done(project.engine, "spring", NOW)
    settle(project, "hello", TouchState.ACCEPTED)
    assert running_campaigns(project.engine) == []
