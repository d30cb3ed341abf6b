from __future__ import annotations

from pathlib import Path

import pytest

from deployments.spec import read
from postroad.errors import ConfigError

CHECKOUT = Path(__file__).parents[2]
SENDING = "campaign"


def edited(tmp_path: Path, old: str, new: str) -> Path:
    """The project's own file with one change."""
    text = (CHECKOUT / "prefect.yaml").read_text()
    assert old in text
    path = tmp_path / "prefect.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_no_schedule_sends_until_it_is_turned_on() -> None:
    (campaign,) = [d for d in read(CHECKOUT / "prefect.yaml").deployments if d.name == SENDING]
    assert campaign.schedules
    assert not any(schedule.active for schedule in campaign.schedules)


def test_two_campaigns_may_start_at_once() -> None:
    """A deployment's limit spans all its parameters: CANCEL_NEW would cancel the other campaign."""
    (campaign,) = [d for d in read(CHECKOUT / "prefect.yaml").deployments if d.name == SENDING]
    assert campaign.concurrency_limit.collision_strategy == "ENQUEUE"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("pull: []", "pull: [{prefect.deployments.steps.set_working_directory: {directory: /home}}]", "pull"),
        ("pull: []\n", "", "pull"),
        ('cron: "*/5 * * * *"', "interval: 300", "interval"),
        ("slug: every-five-minutes", "sluq: every-five-minutes", "sluq"),
        ("entrypoint: flows.campaign.campaign", "triggers: []", "triggers"),
        ("deployments:\n", "deployments: [\n", "while parsing"),
        ("timezone: Europe/Berlin", "timezone: localtime", "not a time zone"),
    ],
)
def test_a_key_that_would_be_ignored_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = edited(tmp_path, old, new)
    with pytest.raises(ConfigError, match=complaint) as caught:
        read(path)
    assert caught.value.where == str(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read: No such file"):
        read(tmp_path / "nothing.yaml")
