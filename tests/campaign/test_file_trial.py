"""A file that a launch imports is checked as it is, and nothing of it is kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.campaign.apply import warn_of_new_audience
from postroad.campaign.audience import import_file
from postroad.campaign.definition import CampaignFile, read_campaign
from postroad.campaign.plan import forecast
from postroad.campaign.preflight import Level, PreflightReport, check
from postroad.errors import ConfigError
from postroad.store.engine import write
from tests.campaign.house import CAMPAIGN, NOW, House
from tests.campaign.tables import row_counts
from tests.campaign.test_preflight import FOOT, SIGNER

WITH_FILE = CAMPAIGN.replace("name: people", "name: people\n  file: people.csv")


def write_file(house: House, *rows: str, header: str = "email,tz,name") -> Path:
    path = house.folder / "people.csv"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def preflight(house: House, path: Path) -> PreflightReport:
    return check(house.engine, house.settings, SIGNER, "spring", file=path)


def fails(report: PreflightReport) -> list[str]:
    return [finding.what for finding in report.findings if finding.level is Level.FAIL]


def test_a_missing_audience_file_is_refused_at_apply(house: House) -> None:
    before = row_counts(house.engine)
    with pytest.raises(ConfigError, match=r"there is no file .*people\.csv") as caught:
        house.apply(WITH_FILE)
    assert (caught.value.where or "").endswith("campaign.yaml, audience.file")
    assert row_counts(house.engine) == before


def test_a_misspelled_audience_is_warned_of(house: House) -> None:
    assert "no audience named 'people', so an empty one is made." in str(warn_of_new_audience(*with_file(house)))
    house.fill(["a@example.com,,Ada"])
    assert warn_of_new_audience(*with_file(house)) is None
    misspelled = CAMPAIGN.replace("people", "peple")
    assert "Did you mean 'people'?" in str(warn_of_new_audience(*with_file(house, misspelled)))
    write_file(house)
    with_a_file = WITH_FILE.replace("name: people", "name: others")
    assert warn_of_new_audience(*with_file(house, with_a_file)) is None


def with_file(house: House, text: str = CAMPAIGN) -> tuple[sa.Engine, CampaignFile]:
    return house.engine, read_campaign(house.campaign_file(text))


def test_new_members_are_counted_by_zone_and_nothing_is_kept(house: House) -> None:
    house.fill(["a@example.com,Asia/Tokyo,Ada"])
    path = write_file(
        house,
        "a@example.com,,Ada",
        "b@example.com,Asia/Tokyo,Bea",
        "B@example.com,,Bea",
        "c@example.com,UTC,Cy",
        "d@example.com,,Di",
        "e@gone.example,,Eve",
        "nobody,,",
    )
    house.apply(WITH_FILE)
    with write(house.engine) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO suppression (address, audience_id, reason, source, created_at) VALUES "
                "('@gone.example', 0, 'manual', 'test', '2026-01-01 00:00:00')"
            )
        )
    before = row_counts(house.engine)
    report = preflight(house, path)
    assert report.file is not None
    assert (report.file.rows, report.file.refused, report.file.suppressed) == (7, 1, 1)
    assert report.file.zones == Counter({"Asia/Tokyo": 1, "UTC": 1, None: 1})
    assert (report.ok, report.recipients) == (True, 5)
    assert [finding.what.split(" of ")[0] for finding in report.findings] == ["1"]
    seen = forecast(house.engine, "spring", NOW, report.file)
    assert [(due.time_zone, due.recipients) for due in seen.due] == [("Asia/Tokyo", 2), ("UTC", 2)]
    assert (seen.recipients, seen.suppressed, seen.time_zone) == (4, 1, "UTC")
    assert row_counts(house.engine) == before
    import_file(house.engine, "people", path, NOW)
    after = forecast(house.engine, "spring", NOW)
    assert (after.recipients, after.suppressed, after.due) == (seen.recipients, seen.suppressed, seen.due)


def test_merge_fields_are_tried_against_each_row(house: House) -> None:
    house.template("hello.txt", "Hello {{ name }} of {{ town }}," + FOOT)
    house.fill(["known@example.com,,Kay,York"], header="email,tz,name,town")
    path = write_file(
        house,
        *(f"r{n}@example.com,R{n},Rome" for n in range(1_200)),
        "s@example.com,,Rome",
        "known@example.com,Kim,",
        header="email,name,town",
    )
    house.apply(WITH_FILE)
    (found,) = fails(preflight(house, path))
    assert found == "campaign spring, step hello, text, line 1: 'name' is undefined (for s@example.com)"


def test_a_file_repairs_members_that_lack_a_field(house: House) -> None:
    house.template("hello.txt", "Hello {{ name }}," + FOOT)
    house.fill(["a@example.com,,"])
    path = write_file(house, "a@example.com,,Ada")
    house.apply(WITH_FILE)
    assert fails(preflight(house, path)) == []


def test_a_file_that_is_not_a_csv_of_recipients_fails(house: House) -> None:
    path = write_file(house, "x,y", header="one,two")
    house.apply(WITH_FILE)
    (found,) = fails(preflight(house, path))
    assert "there is no column `address`" in found


def test_a_file_without_a_valid_row_fails(house: House) -> None:
    path = write_file(house, "nobody,,")
    house.apply(WITH_FILE)
    (found,) = fails(preflight(house, path))
    assert found.endswith("has no valid row, and the audience is empty")
