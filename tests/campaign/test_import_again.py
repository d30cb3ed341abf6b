"""A file that is imported again after another one is imported from its first row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.campaign.audience import ImportProgress, abandon_imports, import_file, import_slice, open_import, refusals
from postroad.campaign.audience_file import audience_file
from postroad.store import migrate
from postroad.store.engine import open_engine, read, write
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject
from tests.campaign.tables import members, recipients, row_counts
from tests.campaign.test_import import sums

PEOPLE = ["ada@example.com", "bob@example.com", "cem@example.com", "dan@example.com"]


def export(folder: Path, name: str, city: str, *, people: list[str] = PEOPLE) -> Path:
    path = folder / name
    path.write_text("email,city\n" + "".join(f"{address},{city}\n" for address in people))
    return path


def cities(engine: sa.Engine) -> set[str]:
    return {attributes["city"] for _, attributes in recipients(engine).values()}


def import_rows(engine: sa.Engine, path: Path, rows: int, audience: str = "people") -> ImportProgress:
    return import_slice(engine, open_import(engine, audience, path, NOW).import_id, NOW, rows=rows)


@pytest.mark.parametrize("between", ["people", "others"])
def test_a_file_imported_again_after_another_applies_again(engine: sa.Engine, tmp_path: Path, between: str) -> None:
    """Recipients are shared, so an import into another audience counts as well."""
    day1, day2 = export(tmp_path, "day1.csv", "Bern"), export(tmp_path, "day2.csv", "Basel")
    first = import_file(engine, "people", day1, NOW)
    import_file(engine, between, day2, NOW)
    assert cities(engine) == {"Basel"}
    again = import_file(engine, "people", day1, NOW + timedelta(days=1))
    assert cities(engine) == {"Bern"}
    assert (sums(again), again.already, again.finished) == (sums(first), False, True)
    import_file(engine, between, day2, NOW)
    assert cities(engine) == {"Basel"}
    assert members(engine, "people") == set(PEOPLE)


def test_a_repeated_import_reports_that_it_did_nothing(engine: sa.Engine, tmp_path: Path) -> None:
    day1 = export(tmp_path, "day1.csv", "Bern")
    assert not import_file(engine, "people", day1, NOW).already
    before = row_counts(engine)
    assert import_file(engine, "people", day1, NOW).already
    assert row_counts(engine) == before


def test_an_import_of_an_empty_file_supersedes_no_other(engine: sa.Engine, tmp_path: Path) -> None:
    day1, empty = export(tmp_path, "day1.csv", "Bern"), export(tmp_path, "none.csv", "", people=[])
    import_file(engine, "people", day1, NOW)
    import_file(engine, "people", empty, NOW)
    assert import_file(engine, "people", day1, NOW).already


def test_an_interrupted_import_starts_again_after_another(engine: sa.Engine, tmp_path: Path) -> None:
    day1, day2 = export(tmp_path, "day1.csv", "Bern"), export(tmp_path, "day2.csv", "Basel")
    begun = import_rows(engine, day1, 2)
    import_file(engine, "people", day2, NOW)
    resumed = open_import(engine, "people", day1, NOW)
    assert (resumed.rows_done, resumed.import_id != begun.import_id) == (0, True)
    assert sums(import_file(engine, "people", day1, NOW)) == (4, 0, 0)
    assert cities(engine) == {"Bern"}
    # No unfinished import is left that preflight would report.
    with read(engine) as connection:
        assert (
            connection.execute(sa.text("SELECT count(*) FROM audience_import WHERE finished_at IS NULL")).scalar() == 0
        )


def test_a_repeated_import_resumes_at_its_cursor(engine: sa.Engine, tmp_path: Path) -> None:
    day1, day2 = export(tmp_path, "day1.csv", "Bern"), export(tmp_path, "day2.csv", "Basel")
    import_file(engine, "people", day1, NOW)
    import_file(engine, "people", day2, NOW)
    part = import_rows(engine, day1, 3)
    resumed = open_import(engine, "people", day1, NOW)
    assert (resumed.import_id, resumed.rows_done, sums(resumed)) == (part.import_id, 3, (3, 0, 0))
    assert sums(import_file(engine, "people", day1, NOW)) == (4, 0, 0)
    assert cities(engine) == {"Bern"}


def test_alternating_imports_are_both_repeated(engine: sa.Engine, tmp_path: Path) -> None:
    day1, day2 = export(tmp_path, "day1.csv", "Bern"), export(tmp_path, "day2.csv", "Basel")
    one, two = open_import(engine, "people", day1, NOW), open_import(engine, "people", day2, NOW)
    for _ in range(4):
        for begun in (one, two):
            import_slice(engine, begun.import_id, NOW, rows=1)
    assert cities(engine) == {"Basel"}
    assert not import_file(engine, "people", day1, NOW).already
    assert cities(engine) == {"Bern"}
    assert not import_file(engine, "people", day2, NOW).already
    assert cities(engine) == {"Basel"}


def test_refused_rows_are_listed_once_for_each_import(engine: sa.Engine, tmp_path: Path) -> None:
    day1 = export(tmp_path, "day1.csv", "Bern", people=["ada@example.com", "nobody"])
    first = import_file(engine, "people", day1, NOW)
    import_file(engine, "people", export(tmp_path, "day2.csv", "Basel"), NOW)
    again = import_file(engine, "people", day1, NOW)
    assert [row.line for row in refusals(engine, first.import_id)] == [3]
    assert [row.line for row in refusals(engine, again.import_id)] == [3]


def test_an_abandoned_import_starts_again_at_the_first_row(engine: sa.Engine, tmp_path: Path) -> None:
    day1 = export(tmp_path, "day1.csv", "Bern")
    import_rows(engine, day1, 2)
    assert abandon_imports(engine, "people", NOW) == 1
    assert sums(import_file(engine, "people", day1, NOW)) == (4, 0, 0)
    assert members(engine, "people") == set(PEOPLE)


def campaign_with_file(project: CampaignProject) -> Path:
    path = export(project.folder, "people.csv", "Bern")
    project.apply(CAMPAIGN.replace("name: people", "name: people\n  file: people.csv"))
    return path


def is_imported_at_launch(project: CampaignProject) -> bool:
    file = audience_file(project.engine, "spring")
    assert file is not None
    return file.to_import


def test_a_launch_imports_a_file_whose_old_content_was_restored(project: CampaignProject) -> None:
    path = campaign_with_file(project)
    import_file(project.engine, "people", path, NOW)
    import_file(project.engine, "people", export(project.folder, "people.csv", "Basel"), NOW)
    export(project.folder, "people.csv", "Bern")
    file = audience_file(project.engine, "spring")
    assert file is not None
    assert file.to_import
    import_file(project.engine, file.audience, file.path, NOW)
    assert cities(project.engine) == {"Bern"}
    assert not is_imported_at_launch(project)


def test_a_launch_keeps_newer_values_of_another_file(project: CampaignProject) -> None:
    path = campaign_with_file(project)
    import_file(project.engine, "people", path, NOW)
    file = audience_file(project.engine, "spring")
    assert file is not None
    assert (file.to_import, file.overtaken) == (False, False)
    import_file(project.engine, "people", export(project.folder, "corrections.csv", "Basel"), NOW)
    file = audience_file(project.engine, "spring")
    assert file is not None
    assert (file.to_import, file.overtaken) == (False, True)
    assert "is not imported again; another file changed recipients since" in file.why_not


def test_a_launch_finishes_an_interrupted_import(project: CampaignProject) -> None:
    path = campaign_with_file(project)
    import_rows(project.engine, path, 2)
    assert is_imported_at_launch(project)
    abandon_imports(project.engine, "people", NOW)
    assert not is_imported_at_launch(project)


OLDER = (
    "INSERT INTO audience_import (id, audience_id, path, sha256, rows_total, cursor, line, rows_done, imported, "
    "duplicates, refused, started_at, finished_at) VALUES (:id, 1, :path, :sha256, 4, 0, 1, :rows_done, 0, 0, 0, "
    ":now, :now)"
)


def test_the_newest_import_of_an_older_version_is_current(empty_database_url: str) -> None:
    engine = open_engine(empty_database_url)
    at = datetime(2026, 5, 4, tzinfo=UTC).isoformat(" ")
    with write(engine) as connection:
        migrate.run_migrations(connection, "0021")
        connection.execute(
            sa.text("INSERT INTO audience (id, name, created_at) VALUES (1, 'people', :now)"), {"now": at}
        )
        for id_, rows_done in ((1, 4), (2, 4), (3, 0)):
            values = {"id": id_, "path": "x.csv", "sha256": str(id_) * 64, "rows_done": rows_done, "now": at}
            connection.execute(sa.text(OLDER), values)
    migrate.upgrade(engine)
    with read(engine) as connection:
        rows = connection.execute(sa.text("SELECT id, sha256, current_key FROM audience_import ORDER BY id")).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [(1, "1" * 64, "#1"), (2, "2" * 64, "2" * 64), (3, "3" * 64, "3" * 64)]
