"""The file that a launch imports is checked before the import, and nothing is stored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.campaign.apply import warn_of_new_audience, warn_of_unknown_fields
from postroad.campaign.audience import import_file
from postroad.campaign.definition import CampaignFile, read_campaign
from postroad.campaign.file_trial import try_file
from postroad.campaign.finding import PreflightCode
from postroad.campaign.launch_forecast import forecast
from postroad.campaign.preflight import Level, PreflightReport, check
from postroad.campaign.segment import Segment
from postroad.errors import ConfigError
from postroad.store.campaign import find_campaign
from postroad.store.engine import read, write
from tests.campaign.checking import FOOT, SIGNER
from tests.campaign.journeys import HEADER, JOURNEY, PEOPLE
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject
from tests.campaign.tables import row_counts

WITH_FILE = CAMPAIGN.replace("name: people", "name: people\n  file: people.csv")


def write_file(project: CampaignProject, *rows: str, header: str = "email,tz,name") -> Path:
    path = project.folder / "people.csv"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def preflight(project: CampaignProject, path: Path) -> PreflightReport:
    return check(project.engine, project.settings, SIGNER, "spring", file=path)


def fails(report: PreflightReport) -> list[str]:
    return [finding.what for finding in report.findings if finding.level is Level.FAIL]


def test_rows_outside_the_segment_are_not_missing_from_the_trial(project: CampaignProject) -> None:
    path = write_file(project, *(f"r{n}@example.com,,{'Ada' if n < 2 else 'Bob'}" for n in range(5)))
    project.apply(WITH_FILE.replace("file: people.csv", "file: people.csv\n  where: name = 'Ada'"))
    report = preflight(project, path)
    assert (report.ok, report.recipients) == (True, 2)
    assert PreflightCode.RENDER_SLOW.word not in {finding.code for finding in report.findings}
    with read(project.engine) as connection:
        segment = Segment.of(find_campaign(connection, "spring"), NOW)
    in_time, late = (try_file(project.engine, segment, path, (), budget_s=budget) for budget in (60.0, -1.0))
    assert (in_time.met, in_time.tried) == (2, 2)
    assert (late.met, late.tried) == (2, 0), "what was not tried in time does not count as tried"


def test_a_missing_audience_file_fails_the_apply(project: CampaignProject) -> None:
    before = row_counts(project.engine)
    with pytest.raises(ConfigError, match=r"there is no file .*people\.csv") as caught:
        project.apply(WITH_FILE)
    assert (caught.value.where or "").endswith("campaign.yaml, audience.file")
    assert row_counts(project.engine) == before


def test_a_misspelled_audience_causes_a_warning(project: CampaignProject) -> None:
    assert "no audience named 'people', so an empty one is created." in str(warn_of_new_audience(*with_file(project)))
    project.fill(["a@example.com,,Ada"])
    assert warn_of_new_audience(*with_file(project)) is None
    misspelled = CAMPAIGN.replace("people", "peple")
    assert "Did you mean 'people'?" in str(warn_of_new_audience(*with_file(project, misspelled)))
    write_file(project)
    with_a_file = WITH_FILE.replace("name: people", "name: others")
    assert warn_of_new_audience(*with_file(project, with_a_file)) is None


def with_file(project: CampaignProject, text: str = CAMPAIGN) -> tuple[sa.Engine, CampaignFile]:
    return project.engine, read_campaign(project.campaign_file(text))


def test_new_members_are_counted_by_zone_and_not_stored(project: CampaignProject) -> None:
    project.fill(["a@example.com,Asia/Tokyo,Ada"])
    path = write_file(
        project,
        "a@example.com,,Ada",
        "b@example.com,Asia/Tokyo,Bea",
        "B@example.com,,Bea",
        "c@example.com,UTC,Cy",
        "d@example.com,,Di",
        "e@gone.example,,Eve",
        "nobody,,",
    )
    project.apply(WITH_FILE)
    with write(project.engine) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO suppression (address, audience_id, reason, source, created_at) VALUES "
                "('@gone.example', 0, 'manual', 'test', '2026-01-01 00:00:00')"
            )
        )
    before = row_counts(project.engine)
    report = preflight(project, path)
    assert report.file is not None
    assert (report.file.rows, report.file.refused, report.file.suppressed) == (7, 1, 1)
    assert report.file.zones == Counter({"Asia/Tokyo": 1, "UTC": 1, None: 1})
    assert (report.ok, report.recipients) == (True, 5)
    assert [finding.what.split(" of ")[0] for finding in report.findings] == ["1"]
    seen = forecast(project.engine, "spring", NOW, report.file)
    assert [(due.time_zone, due.recipients) for due in seen.due] == [("Asia/Tokyo", 2), ("UTC", 2)]
    assert (seen.recipients, seen.suppressed, seen.time_zone) == (4, 1, "UTC")
    assert row_counts(project.engine) == before
    import_file(project.engine, "people", path, NOW)
    after = forecast(project.engine, "spring", NOW)
    assert (after.recipients, after.suppressed, after.due) == (seen.recipients, seen.suppressed, seen.due)


def test_merge_fields_are_tried_against_each_row(project: CampaignProject) -> None:
    project.template("hello.txt", "Hello {{ name }} of {{ town }}," + FOOT)
    project.fill(["known@example.com,,Kay,York"], header="email,tz,name,town")
    path = write_file(
        project,
        *(f"r{n}@example.com,R{n},Rome" for n in range(1_200)),
        "s@example.com,,Rome",
        "known@example.com,Kim,",
        header="email,name,town",
    )
    project.apply(WITH_FILE)
    (found,) = fails(preflight(project, path))
    assert found == "campaign spring, step hello, text, line 1: 'name' is undefined (for s@example.com)"


def test_a_file_repairs_members_that_lack_a_field(project: CampaignProject) -> None:
    project.template("hello.txt", "Hello {{ name }}," + FOOT)
    project.fill(["a@example.com,,"])
    path = write_file(project, "a@example.com,,Ada")
    project.apply(WITH_FILE)
    assert fails(preflight(project, path)) == []


def test_a_file_that_is_not_a_csv_of_recipients_fails(project: CampaignProject) -> None:
    path = write_file(project, "x,y", header="one,two")
    project.apply(WITH_FILE)
    (found,) = fails(preflight(project, path))
    assert "there is no column `address`" in found


def test_a_file_without_a_valid_row_fails(project: CampaignProject) -> None:
    path = write_file(project, "nobody,,")
    project.apply(WITH_FILE)
    (found,) = fails(preflight(project, path))
    assert found.endswith("has no valid row, and the audience is empty")


def test_an_apply_warns_of_a_field_in_a_condition_that_no_recipient_has(project: CampaignProject) -> None:
    misspelled = JOURNEY.replace("number(seats)", "number(seatz)").replace("date(trial_ends)", "date(trial_end)")
    engine, file = with_file(project, misspelled)
    assert warn_of_unknown_fields(engine, project.settings, file) == []  # The audience has no recipient yet.
    project.fill(PEOPLE, header=HEADER)
    warnings = warn_of_unknown_fields(engine, project.settings, file)
    assert [warning.partition(": ")[2] for warning in warnings] == [
        "if-3 names the field seatz, which no recipient of people has. Did you mean 'seats'?",
        "wait-until-7 names the field trial_end, which no recipient of people has. Did you mean 'trial_ends'?",
    ]
