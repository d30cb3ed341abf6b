"""Hints about an event that was recorded: it is in the future, or no campaign waits for its name."""

from __future__ import annotations

from datetime import timedelta

from postroad.campaign.event_hints import awaited_events, event_hints
from postroad.store.engine import read
from postroad.store.recipient_event import NewEvent
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject

BRANCH = """  - if: "event('clicked', where => number(amount) > 5) or event('renewed')"
    then: [{email: more, subject: More, text: hello.txt}]
"""


def hints(project: CampaignProject, name: str, days: int = 0) -> list[str]:
    return event_hints(project.engine, NewEvent("a@example.com", name, NOW + timedelta(days=days)), NOW)


def test_every_condition_of_a_campaign_may_wait_for_an_event(project: CampaignProject) -> None:
    where = CAMPAIGN.replace("name: people\n", "name: people\n  where: \"event('asked')\"\n")
    project.apply(where + BRANCH + "exit: \"event('paid')\"\nentry: \"event('signed-up')\"\n")
    with read(project.engine) as connection:
        assert awaited_events(connection) == {"asked", "clicked", "renewed", "paid", "signed-up"}


def test_a_similar_name_is_suggested(project: CampaignProject) -> None:
    assert hints(project, "piad") == []  # No campaign waits for any event.
    project.apply(CAMPAIGN + "exit: \"event('paid')\"\n")
    assert hints(project, "paid") == []
    [hint] = hints(project, "piad")
    assert "names the event piad. Did you mean 'paid'?" in hint
    [hint] = hints(project, "logged-in")
    assert hint.endswith("Campaigns wait for: paid.")


def test_a_time_in_the_future_is_said(project: CampaignProject) -> None:
    [hint] = hints(project, "paid", days=1)
    assert hint.startswith("The event is at 2026-05-05 08:30:00 UTC, in the future")
