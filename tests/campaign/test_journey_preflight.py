"""Preflight says how many recipients of a journey would take which branch now, and how many lack a date."""

from __future__ import annotations

from pydantic import SecretStr

from postroad.campaign.preflight import check
from postroad.mail.token import TokenSigner
from tests.campaign.journeys import HEADER, JOURNEY, PEOPLE
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject


def findings(project: CampaignProject) -> dict[str, str]:
    signer = TokenSigner(SecretStr("k" * 32))
    report = check(project.engine, project.settings, signer, "spring", now=NOW)
    return {f"{one.step} {one.code}": one.what.partition(": ")[2] for one in report.findings if "journey" in one.code}


def test_the_ways_of_all_recipients_are_counted(project: CampaignProject) -> None:
    project.fill([*PEOPLE, "more@example.com,,trial,9,FR,"], header=HEADER)
    project.apply(JOURNEY)
    assert findings(project) == {
        "if-3 journey.ways": "of 4 recipients, 2 would take `then` now and 2 `else`",
        "in-germany journey.ways": "of 2 recipients, 1 would take `then` now and 1 `else`",
        "wait-until-7 journey.no-date": "2 of 4 recipients have no date(trial_ends) - 2d: their journey ends there",
    }


def test_only_the_segment_counts(project: CampaignProject) -> None:
    project.fill(PEOPLE, header=HEADER)
    project.apply(JOURNEY.replace("  name: people\n", "  name: people\n  where: \"country = 'DE'\"\n"))
    assert findings(project)["if-3 journey.ways"] == "of 2 recipients, 1 would take `then` now and 1 `else`"
    assert "wait-until-7 journey.no-date" not in findings(project)


def test_a_campaign_without_branches_has_no_such_finding(project: CampaignProject) -> None:
    project.fill(["a@example.com,,A"])
    project.apply(CAMPAIGN)
    assert findings(project) == {}
