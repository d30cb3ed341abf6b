"""The frequency cap in the campaign's file, in the settings, in preflight and in `postroad doctor`."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import launch
from postroad.campaign.preflight import PreflightFinding, check
from postroad.errors import ConfigError
from postroad.mail.token import TokenSigner
from postroad.settings import Settings
from postroad.store.engine import write
from tests.campaign.project import CAMPAIGN, CONFIG, NOW, CampaignProject

CAPS = CONFIG.replace("[routes.relay]", '[frequency]\nnormal = "1/7d"\nrare = "1/30d"\n\n[routes.relay]')


@pytest.mark.parametrize(
    ("field", "stored"),
    [
        ("", (None, False)),
        ("frequency: normal", ("normal", False)),
        ("frequency: ignore", ("ignore", False)),
        ("frequency: {class: rare, when_over: skip}", ("rare", True)),
        ("frequency: {when_over: skip}", ("normal", True)),
        ("frequency: {class: rare}", ("rare", False)),
    ],
)
def test_a_campaign_names_its_class(project: CampaignProject, field: str, stored: tuple[str | None, bool]) -> None:
    project.configure(CAPS)
    campaign = project.apply(CAMPAIGN + field + "\n")
    assert (campaign.frequency, campaign.frequency_skip) == stored


def test_the_class_may_change_after_the_launch(project: CampaignProject) -> None:
    project.configure(CAPS)
    project.fill(["ada@example.com,,Ada"])
    project.apply(CAMPAIGN)
    launch(project.engine, "spring", NOW)
    assert project.apply(CAMPAIGN + "frequency: ignore\n").frequency == "ignore"
    assert project.apply(CAMPAIGN).frequency is None


@pytest.mark.parametrize(
    ("config", "field", "expected"),
    [
        (CAPS, "frequency: rar", "line 10, frequency: there is no frequency class 'rar' (known: normal, rare)"),
        (CONFIG, "frequency: normal", "line 10, frequency: there is no frequency class 'normal' (known: none)"),
        (CAPS, "frequency: {class: gone}", "there is no frequency class 'gone'"),
        (CAPS, "frequency: 3/7d", "line 10: frequency.class: up to 64 lower-case letters"),
        (CAPS, "frequency: {when_over: drop}", "frequency.when_over"),
        (CAPS, "frequency: {over: skip}", "line 10: over is not a field of frequency"),
        (CAPS, "frequency: [normal]", "line 10: frequency: it must be a mapping"),
    ],
)
def test_a_wrong_class_names_line_and_field(project: CampaignProject, config: str, field: str, expected: str) -> None:
    project.configure(config)
    path = project.campaign_file(CAMPAIGN + field + "\n")
    with pytest.raises(ConfigError) as caught:
        read_campaign(path, project.settings)
    assert expected in f"{caught.value.where}: {caught.value.message}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('normal = "3"', "is not a rate"),
        ('normal = "0/7d"', "is not a rate"),
        ('normal = "3/91d"', "is longer than 90d"),
        ('normal = "1001/7d"', "at most 1,000 messages"),
        ('ignore = "3/7d"', "must not be called ignore"),
        ('Normal = "3/7d"', "lower-case letters"),
        ("normal = 3", "is not a rate"),
    ],
)
def test_a_wrong_cap_names_file_and_line(tmp_path: Path, line: str, expected: str) -> None:
    path = tmp_path / "postroad.toml"
    path.write_text(f"[frequency]\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2") as caught:
        Settings.load(path)
    assert expected in str(caught.value)


def test_preflight_counts_who_is_over_the_cap(project: CampaignProject) -> None:
    project.configure(CAPS)
    project.fill(["ada@example.com,,Ada", "bob@example.com,,Bob"])
    project.apply(CAMPAIGN)
    launch(project.engine, "spring", NOW)
    with write(project.engine) as connection:
        accepted = "UPDATE touch SET state = 'accepted', settled_at = CURRENT_TIMESTAMP"
        connection.execute(sa.text(accepted))
    project.fill(["cyd@example.com,,Cyd"])
    for extra, effect in (("", "sent later"), ("frequency: {when_over: skip}\n", "skipped")):
        project.apply(CAMPAIGN.replace("name: spring", "name: summer") + extra)
        [finding] = [found for found in findings(project, "summer") if "frequency" in found.what]
        assert finding.what == "2 recipients are over the frequency cap normal (1/7d) now"
        assert finding.recipients == 2
        assert effect in finding.remedy
    project.apply(CAMPAIGN.replace("name: spring", "name: summer") + "frequency: ignore\n")
    assert not [found for found in findings(project, "summer") if "frequency" in found.what]


def test_preflight_fails_without_the_class(project: CampaignProject) -> None:
    project.configure(CAPS)
    project.fill(["ada@example.com,,Ada"])
    project.apply(CAMPAIGN + "frequency: rare\n")
    project.configure(CONFIG)
    [finding] = [found for found in findings(project, "spring") if "frequency" in found.what]
    assert (finding.level, finding.what) == ("fail", "there is no frequency class 'rare' (known: none)")


def findings(project: CampaignProject, name: str) -> tuple[PreflightFinding, ...]:
    return check(project.engine, project.settings, TokenSigner(SecretStr("key")), name).findings
