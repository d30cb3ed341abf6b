"""A correction goes to exactly those whom the corrected campaign reached, and no suppression is lost on the way."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.campaign.definition import read_campaign
from postroad.campaign.launch_forecast import forecast
from postroad.campaign.plan import launch
from postroad.errors import ConfigError, StateError
from postroad.settings import UnsubscribeScope
from postroad.store.engine import read, write
from postroad.store.suppression import SuppressionReason, suppress
from postroad.store.unsubscribe import unsubscribe_touch
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject

CORRECTION = """
name: sorry
sender: news
corrects: spring
steps:
  - email: correction
    subject: "Correction"
    text: hello.txt
"""
LATER = NOW + timedelta(hours=1)
STATES = ("accepted", "unknown", "bounced", "suppressed", "cancelled", "skipped", "expired", "dead")


def sent(project: CampaignProject, *states: str) -> None:
    """Launch a campaign whose touches have these states, one for each: the address begins with it."""
    project.fill([f"{state}@example.com,,X" for state in states] + ["late@example.com,,X"])
    with write(project.engine) as connection:
        late = "DELETE FROM audience_member WHERE recipient_id = (SELECT id FROM recipient WHERE address LIKE 'late@%')"
        connection.execute(sa.text(late))
    project.apply(CAMPAIGN)
    launch(project.engine, "spring", NOW)
    with write(project.engine) as connection:
        for state in states:
            recipient = "(SELECT id FROM recipient WHERE address = :address)"
            statement = sa.text(f"UPDATE touch SET state = :state WHERE recipient_id = {recipient}")
            connection.execute(statement, {"state": state, "address": f"{state}@example.com"})


def addresses(project: CampaignProject, campaign: str = "sorry") -> dict[str, str]:
    return {address.partition("@")[0]: state for _, address, state, _ in project.touches(campaign)}


def test_a_correction_goes_to_those_who_accepted(project: CampaignProject) -> None:
    sent(project, *STATES)
    campaign = project.apply(CORRECTION, now=LATER)
    assert (campaign.job_class, campaign.frequency) == ("urgent", "ignore")
    assert forecast(project.engine, "sorry", LATER).recipients == 1
    launched = launch(project.engine, "sorry", LATER)
    assert (launched.audience, addresses(project)) == (1, {"accepted": "planned"})


def test_with_unknown_it_also_goes_to_those_who_may_have_it(project: CampaignProject) -> None:
    sent(project, *STATES)
    project.apply(CORRECTION, now=LATER)
    both = CORRECTION.replace("corrects: spring", "corrects: {campaign: spring, unknown: true}")
    project.apply(both, now=LATER)
    project.apply(CORRECTION, now=LATER)  # Changed back, and again: the last one applies.
    project.apply(both, now=LATER)
    launch(project.engine, "sorry", LATER)
    assert addresses(project) == {"accepted": "planned", "unknown": "planned"}


@pytest.mark.parametrize(("was", "became"), [("unknown", "dead"), ("accepted", "bounced")])
def test_who_did_not_get_it_after_all_gets_no_correction(project: CampaignProject, was: str, became: str) -> None:
    """An operator resolves an unknown delivery, or a bounce message arrives, and the correction is applied again."""
    sent(project, "accepted", "unknown")
    both = CORRECTION.replace("corrects: spring", "corrects: {campaign: spring, unknown: true}")
    project.apply(both, now=LATER)
    with write(project.engine) as connection:
        statement = sa.text("UPDATE touch SET state = :became WHERE state = :was")
        connection.execute(statement, {"was": was, "became": became})
    project.apply(both, now=LATER)
    launch(project.engine, "sorry", LATER)
    assert addresses(project) == {({"accepted", "unknown"} - {was}).pop(): "planned"}


def test_its_class_and_frequency_may_be_set(project: CampaignProject) -> None:
    sent(project, "accepted")
    campaign = project.apply(CORRECTION + "class: normal\n", now=LATER)
    assert (campaign.job_class, campaign.frequency) == ("normal", "ignore")


def test_a_suppression_of_the_corrected_audience_holds(project: CampaignProject) -> None:
    """Also one that comes after the launch, by the link of the first message or of the correction."""
    sent(project, "accepted", "unknown")
    project.apply(CORRECTION.replace("corrects: spring", "corrects: {campaign: spring, unknown: true}"), now=LATER)
    with write(project.engine) as connection:
        people = connection.execute(sa.text("SELECT id FROM audience WHERE name = 'people'")).scalar_one()
        suppress(connection, ["unknown@example.com"], SuppressionReason.UNSUBSCRIBE, "test", LATER, people)
    launch(project.engine, "sorry", LATER)
    assert addresses(project) == {"accepted": "planned", "unknown": "suppressed"}
    with write(project.engine) as connection:
        touch = connection.execute(sa.text("SELECT id FROM touch WHERE state = 'accepted'")).scalar_one()
        ended = unsubscribe_touch(connection, touch, "link", LATER, UnsubscribeScope.AUDIENCE)
        assert ended is not None
        assert len(ended.ended) == 1
        kept = connection.execute(sa.text("SELECT DISTINCT audience_id FROM suppression")).scalars().all()
    assert addresses(project)["accepted"] == "suppressed"
    assert kept == [people]


def test_an_unsubscribe_from_the_correction_ends_the_campaigns_of_the_audience(project: CampaignProject) -> None:
    sent(project, "accepted")
    project.apply(CORRECTION, now=LATER)
    launch(project.engine, "sorry", LATER)
    project.apply(CAMPAIGN.replace("name: spring", "name: summer"), now=LATER)
    launch(project.engine, "summer", LATER)
    with write(project.engine) as connection:
        statement = sa.text(
            "SELECT touch.id FROM touch JOIN campaign ON campaign.id = campaign_id WHERE name = 'sorry'"
        )
        touch = connection.execute(statement).scalar_one()
        unsubscribe_touch(connection, touch, "link", LATER, UnsubscribeScope.AUDIENCE)
    assert addresses(project, "summer") == {"accepted": "suppressed"}


@pytest.mark.parametrize("state", ["planned", "queued", "sending", "deferred"])
def test_a_campaign_that_may_still_send_must_be_recalled_first(project: CampaignProject, state: str) -> None:
    sent(project, "accepted", state)
    with pytest.raises(StateError, match="1 message of campaign spring may still arrive") as caught:
        project.apply(CORRECTION, now=LATER)
    assert "postroad campaign recall spring" in (caught.value.remedy or "")
    with read(project.engine) as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM campaign WHERE name = 'sorry'")).scalar() == 0


def test_the_name_of_another_audience_is_rejected(project: CampaignProject) -> None:
    sent(project, "accepted")
    with pytest.raises(ConfigError, match="the audience people has recipients of other imports"):
        project.apply(CORRECTION.replace("name: sorry", "name: people"), now=LATER)


def test_a_launched_correction_may_be_applied_again(project: CampaignProject) -> None:
    sent(project, "accepted")
    project.apply(CORRECTION, now=LATER)
    launch(project.engine, "sorry", LATER)
    project.apply(CORRECTION + "on_reply: continue\n", now=LATER)
    assert addresses(project) == {"accepted": "planned"}


def test_what_a_launched_correction_corrects_cannot_change(project: CampaignProject) -> None:
    sent(project, "accepted")
    project.apply(CORRECTION, now=LATER)
    launch(project.engine, "sorry", LATER)
    with pytest.raises(StateError, match="its corrects cannot change"):
        project.apply(CORRECTION.replace("corrects: spring", "corrects: {campaign: spring, unknown: true}"), now=LATER)


def test_unknown_campaigns_and_steps_are_named(project: CampaignProject) -> None:
    sent(project, "accepted")
    with pytest.raises(StateError, match="sprong"):
        project.apply(CORRECTION.replace("corrects: spring", "corrects: sprong"))
    with pytest.raises(StateError, match="helo"):
        project.apply(CORRECTION.replace("corrects: spring", "corrects: {campaign: spring, step: helo}"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CORRECTION + "audience: {name: people}\n", "audience and corrects exclude each other"),
        (CORRECTION.replace("corrects: spring\n", ""), "audience: it is missing. A correction has corrects"),
        (CORRECTION.replace("corrects: spring", "corrects: sorry"), "has a name of its own"),
        (CORRECTION + 'goal: "replied()"\n', "consists of emails and waits alone"),
        (CORRECTION.replace("corrects: spring", "corrects: {unknown: true}"), "corrects.campaign: it is missing"),
        (CORRECTION.replace("corrects: spring", "corrects: {campaign: spring, all: true}"), "all is not a field"),
    ],
)
def test_a_wrong_file_names_the_fault(project: CampaignProject, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match="line") as caught:
        read_campaign(project.campaign_file(text), project.settings)
    assert expected in f"{caught.value.where}: {caught.value.message}"
