"""While the file of an audience is imported, each of its recipients is counted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.campaign.approval import launch_size
from postroad.campaign.audience import import_slice, open_import
from postroad.campaign.file_trial import FileTrial, try_file
from postroad.campaign.launch_forecast import forecast
from postroad.campaign.preflight import check
from postroad.campaign.segment import Segment
from postroad.settings import ApprovalSettings
from postroad.store.campaign import find_campaign
from postroad.store.engine import read, write
from postroad.store.suppression import SuppressionReason, suppress
from tests.campaign.checking import SIGNER
from tests.campaign.project import NOW, CampaignProject
from tests.campaign.test_file_trial import WITH_FILE, write_file

ROWS = 10
EVERYONE = ROWS + 1
"""The rows of the file, and a member who is not in it."""


class Importing:
    """A file whose first row is a member already, and its import."""

    def __init__(self, project: CampaignProject, campaign: str) -> None:
        project.fill(["known@example.com,UTC,Kay", "r0@example.com,UTC,Ro"])
        self.path = write_file(project, *(f"r{n}@example.com,UTC,Ro" for n in range(ROWS)))
        self.project = project
        project.apply(campaign)
        self.number = 0

    def go(self, rows: int) -> None:
        """Import the next rows."""
        if rows:
            self.number = self.number or open_import(self.project.engine, "people", self.path, NOW).import_id
            import_slice(self.project.engine, self.number, NOW, rows)

    def trial(self) -> FileTrial:
        with read(self.project.engine) as connection:
            segment = Segment.of(find_campaign(connection, "spring"), NOW)
        return try_file(self.project.engine, segment, self.path, (), budget_s=0.0)

    def recipients(self, then: int = 0) -> list[int]:
        """Number of recipients of a dry run and of an approval. ``then``: rows imported after the trial of the file."""
        engine, trial = self.project.engine, self.trial()
        self.go(then)
        size = launch_size(engine, "spring", NOW, ApprovalSettings(above=1), trial)
        return [forecast(engine, "spring", NOW, trial).recipients, size.people or 0]


WHERE = WITH_FILE.replace("file: people.csv", "file: people.csv\n  where: name IS NOT NULL")
PROGRESS = [(0, 0), (0, 4), (0, ROWS), (4, 0), (4, 3), (4, ROWS)]


@pytest.mark.parametrize("campaign", [WITH_FILE, WHERE], ids=["all", "where"])
@pytest.mark.parametrize(("before", "then"), PROGRESS)
def test_a_count_is_the_same_however_far_the_import_is(
    project: CampaignProject, campaign: str, before: int, then: int
) -> None:
    importing = Importing(project, campaign)
    importing.go(before)
    assert importing.recipients(then) == [EVERYONE, EVERYONE]


@pytest.mark.parametrize(("before", "then"), PROGRESS)
def test_a_preflight_during_an_import_counts_each_row_once(project: CampaignProject, before: int, then: int) -> None:
    importing = Importing(project, WITH_FILE)
    importing.go(before)

    def progress(_done: int, _total: int) -> None:
        importing.go(then)

    report = check(project.engine, project.settings, SIGNER, "spring", file=importing.path, progress=progress)
    assert (report.ok, report.recipients) == (True, EVERYONE)


def test_suppressed_rows_need_no_approval(project: CampaignProject) -> None:
    importing = Importing(project, WITH_FILE)
    with write(project.engine) as connection:
        suppress(connection, ["r1@example.com"], SuppressionReason.UNSUBSCRIBE, "test", NOW)
    assert importing.recipients() == [EVERYONE - 1, EVERYONE - 1]


def test_members_of_an_import_that_was_interrupted_stay_members(project: CampaignProject, tmp_path: Path) -> None:
    project.fill(["known@example.com,UTC,Kay"])
    older = tmp_path / "older.csv"
    older.write_text("email\n" + "".join(f"old{n}@example.com\n" for n in range(4)), encoding="utf-8")
    number = open_import(project.engine, "people", older, NOW).import_id
    import_slice(project.engine, number, NOW, 2)
    importing = Importing(project, WITH_FILE)
    assert importing.recipients() == [EVERYONE + 2, EVERYONE + 2]
