"""The example of a journey is applied, launched and walked by its people."""

from __future__ import annotations

from datetime import timedelta

from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import advance, launch
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.recipient_event import NewEvent, record_events
from tests.campaign.journeys import places, settle
from tests.campaign.project import CONFIG, NOW, CampaignProject
from tests.docs.pages import ROOT

TRIAL = ROOT / "examples/trial"


def test_the_example_of_a_journey_works(project: CampaignProject) -> None:
    project.configure(CONFIG.replace("senders.news", "senders.ada"))
    import_file(project.engine, "trials", TRIAL / "trials.csv", NOW)
    apply(project.engine, project.settings, read_campaign(TRIAL / "campaign.yaml", project.settings), NOW)
    launch(project.engine, "trial", NOW)
    assert places(project, "trial") == dict.fromkeys(("alan", "edsger", "grace"), "hello active")
    settle(project, "hello", TouchState.ACCEPTED)
    advance(project.engine, "trial", NOW)
    with write(project.engine) as connection:
        record_events(connection, [NewEvent("edsger@example.com", "paid", NOW)])
    advance(project.engine, "trial", NOW + timedelta(days=3))
    assert places(project, "trial") == {
        "alan": "first-steps active",
        "edsger": "wait-2 exited exit",
        "grace": "deeper active",
    }
