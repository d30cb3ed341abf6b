"""Imports resume after an interruption, are idempotent, and count every row exactly once."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.campaign.audience import ImportProgress, import_file, import_progress, import_slice, open_import, refusals
from postroad.errors import DataError, PostroadError, StateError, UsageError
from postroad.store.suppression import SuppressionReason, suppress_now
from tests.campaign.tables import members, recipients, row_counts

NOW = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)
PEOPLE = b"""email,name,city,tz
a@example.com,Ada,London,Europe/London
b@example.com,Bob,,
nobody,Nobody,,
A@Example.com,,Paris,
c@example.com,Cem,Ankara,Europe/Istanbul
d@example.com,Dan,,Mars/Olympus
"""


def write_csv(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def sums(progress: ImportProgress) -> tuple[int, int, int]:
    assert progress.imported + progress.duplicates + progress.refused == progress.rows_done
    return progress.imported, progress.duplicates, progress.refused


def test_every_row_is_imported_a_duplicate_or_refused(engine: sa.Engine, tmp_path: Path) -> None:
    progress = import_file(engine, "people", write_csv(tmp_path / "people.csv", PEOPLE), NOW)
    assert (progress.finished, progress.rows_total, progress.rows_done) == (True, 6, 6)
    assert sums(progress) == (3, 1, 2)
    assert recipients(engine) == {
        "a@example.com": ("Europe/London", {"name": "Ada", "city": "Paris"}),
        "b@example.com": (None, {"name": "Bob"}),
        "c@example.com": ("Europe/Istanbul", {"name": "Cem", "city": "Ankara"}),
    }
    assert members(engine, "people") == {"a@example.com", "b@example.com", "c@example.com"}
    found = [(row.line, row.field, row.value, row.reason) for row in refusals(engine, progress.import_id)]
    assert found == [
        (4, "address", "nobody", "An email address must have an @-sign."),
        (7, "time_zone", "Mars/Olympus", "it is not a time zone of the IANA database"),
    ]


def test_a_file_with_only_a_header_imports_no_recipient(engine: sa.Engine, tmp_path: Path) -> None:
    progress = import_file(engine, "people", write_csv(tmp_path / "people.csv", b"email,name\n"), NOW)
    assert (progress.finished, progress.rows_total, sums(progress)) == (True, 0, (0, 0, 0))


def test_a_file_imported_again_changes_nothing(engine: sa.Engine, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "people.csv", PEOPLE)
    first = import_file(engine, "people", path, NOW)
    before = row_counts(engine), recipients(engine)
    assert import_file(engine, "people", path, NOW + timedelta(days=1)) == first
    copy = write_csv(tmp_path / "copy.csv", PEOPLE)
    again = import_file(engine, "people", copy, NOW)
    assert (again.import_id, sums(again)) == (first.import_id, sums(first))
    assert import_slice(engine, first.import_id, NOW) == again
    assert (row_counts(engine), recipients(engine)) == before


def test_the_same_file_fills_another_audience(engine: sa.Engine, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "people.csv", PEOPLE)
    first = import_file(engine, "people", path, NOW)
    second = import_file(engine, "others", path, NOW)
    assert second.import_id != first.import_id
    assert sums(second) == sums(first)
    assert members(engine, "others") == members(engine, "people")
    assert len(recipients(engine)) == 3


def test_a_newer_file_adds_and_merges_but_removes_nothing(engine: sa.Engine, tmp_path: Path) -> None:
    import_file(engine, "people", write_csv(tmp_path / "people.csv", PEOPLE), NOW)
    newer = (
        b"address,name,plan,time_zone\na@example.com,Augusta,pro,\nb@example.com,,,Asia/Tokyo\ne@example.com,Eve,,\n"
    )
    progress = import_file(engine, "people", write_csv(tmp_path / "newer.csv", newer), NOW)
    assert sums(progress) == (3, 0, 0)
    known = recipients(engine)
    assert known["a@example.com"] == ("Europe/London", {"name": "Augusta", "city": "Paris", "plan": "pro"})
    assert known["b@example.com"] == ("Asia/Tokyo", {"name": "Bob"})
    assert known["c@example.com"] == ("Europe/Istanbul", {"name": "Cem", "city": "Ankara"})
    assert members(engine, "people") == set(known)


ODD = {
    "quote": 'O\'Brien "Bob"',
    "backslash": "C:\\new\\table",
    "colon": ":name %(name)s {name} $.name ${x}",
    "lines": "one\ntwo\r\nthree",
    "emoji": "👩‍🚀 ñ \u2028 \u00ad",
    "null": "null",
    "number": "007",
    "boolean": "true",
    "json": '{"a": [1, null]}',
    "größe": "XXL",
    "имя": "Ада",
    "control": "bell \x07 escape \x1b",
    "long": "x" * 100_000,
}


def test_merge_fields_are_stored_unchanged(engine: sa.Engine, tmp_path: Path) -> None:
    cells = ['"' + value.replace('"', '""') + '"' for value in ODD.values()]
    text = ",".join(["email", *ODD]) + "\n" + ",".join(["a@example.com", *cells]) + "\n"
    text += ",".join(["o'brien@example.com", *cells]) + "\n"
    path = write_csv(tmp_path / "people.csv", text.encode())
    import_file(engine, "people", path, NOW)
    import_file(engine, "people", write_csv(tmp_path / "again.csv", text.encode() + b"\n"), NOW)
    assert recipients(engine) == {"a@example.com": (None, ODD), "o'brien@example.com": (None, ODD)}


def test_suppressed_recipients_are_imported_and_stay_suppressed(engine: sa.Engine, tmp_path: Path) -> None:
    suppress_now(engine, ["a@example.com"], SuppressionReason.COMPLAINT, "test", NOW)
    import_file(engine, "people", write_csv(tmp_path / "people.csv", PEOPLE), NOW)
    assert "a@example.com" in members(engine, "people")
    assert row_counts(engine)["suppression"] == 1


def test_refusals_truncate_long_values(engine: sa.Engine, tmp_path: Path) -> None:
    long = "ü" * 10_000
    content = f"email,tz\n{long},\n{long}@example.com,\na@example.com,{long}\n".encode()
    progress = import_file(engine, "people", write_csv(tmp_path / "people.csv", content), NOW)
    assert sums(progress) == (0, 0, 3)
    assert [(row.line, row.value) for row in refusals(engine, progress.import_id)] == [
        (2, "ü" * 320),
        (3, "ü" * 320),
        (4, "ü" * 320),
    ]
    assert [row.line for row in refusals(engine, progress.import_id, limit=1)] == [2]


@pytest.mark.parametrize("name", ["", "x" * 65, "No Spaces", "nul\0"])
def test_an_invalid_audience_name_is_refused(engine: sa.Engine, tmp_path: Path, name: str) -> None:
    before = row_counts(engine)
    with pytest.raises(UsageError, match="cannot be called"):
        import_file(engine, name, write_csv(tmp_path / "people.csv", PEOPLE), NOW)
    assert row_counts(engine) == before


def test_an_unknown_import_is_an_error(engine: sa.Engine) -> None:
    with pytest.raises(StateError, match="no import number 42"):
        import_progress(engine, 42)
    with pytest.raises(StateError, match="no import number 42"):
        import_slice(engine, 42, NOW)


@contextmanager
def fail_at(engine: sa.Engine, statement_number: int) -> Iterator[list[str]]:
    """Make the statement with this number, from 0, fail with its transaction."""
    seen: list[str] = []

    def before(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(("BEGIN", "PRAGMA")):
            return
        seen.append(statement)
        if len(seen) == statement_number + 1:
            raise KeyboardInterrupt

    sa.event.listen(engine, "before_cursor_execute", before)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", before)


def test_a_slice_interrupted_at_any_statement_is_rolled_back(engine: sa.Engine, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "people.csv", PEOPLE)
    progress = open_import(engine, "people", path, NOW)
    number = 0
    while not progress.finished:
        before = row_counts(engine), recipients(engine), import_progress(engine, progress.import_id)
        with fail_at(engine, number) as seen:
            try:
                progress = import_slice(engine, progress.import_id, NOW, rows=2)
            except KeyboardInterrupt:
                pass
            else:
                assert len(seen) == number  # Every statement has failed once.
                number = -1
        if number >= 0:
            assert (row_counts(engine), recipients(engine), import_progress(engine, progress.import_id)) == before
        number += 1
    assert sums(progress) == (3, 1, 2)
    assert open_import(engine, "people", path, NOW) == progress


def test_an_interrupted_import_resumes_at_its_cursor(engine: sa.Engine, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "people.csv", PEOPLE)
    begun = open_import(engine, "people", path, NOW)
    part = import_slice(engine, begun.import_id, NOW, rows=4)
    assert (part.finished, part.rows_done, sums(part)) == (False, 4, (2, 1, 1))
    moved = path.rename(tmp_path / "moved.csv")
    resumed = open_import(engine, "people", moved, NOW + timedelta(hours=1))
    assert (resumed.import_id, resumed.rows_done, resumed.path) == (begun.import_id, 4, str(moved))
    assert sums(import_file(engine, "people", moved, NOW)) == (3, 1, 2)


CHANGES = {
    "shorter": PEOPLE.replace(b"d@example.com,Dan,,Mars/Olympus\n", b""),
    "longer": PEOPLE + b"e@example.com,Eve,,\n",
    "as long": PEOPLE.replace(b"c@example.com,Cem", b"x@example.com,Cem"),
    "emptied": b"",
    "another header": PEOPLE.replace(b"name,city", b"city,name"),
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_a_changed_file_stops_its_import(engine: sa.Engine, tmp_path: Path, changed: bytes) -> None:
    """Also if the timestamps of the new file are those of the old one."""
    path = write_csv(tmp_path / "people.csv", PEOPLE)
    status = path.stat()
    begun = open_import(engine, "people", path, datetime.now(UTC))
    import_slice(engine, begun.import_id, NOW, rows=2)
    before = row_counts(engine), recipients(engine)
    write_csv(path, changed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match="the file changed while it was imported") as caught:
        import_slice(engine, begun.import_id, NOW, rows=2)
    assert caught.value.where == str(path)
    assert (row_counts(engine), recipients(engine)) == before
    write_csv(path, PEOPLE)  # The original content: it resumes.
    assert sums(import_file(engine, "people", path, NOW)) == (3, 1, 2)


def test_a_deleted_file_stops_its_import(engine: sa.Engine, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "people.csv", PEOPLE)
    begun = open_import(engine, "people", path, NOW)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file") as caught:
        import_slice(engine, begun.import_id, NOW)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_concurrent_slices_of_one_import_are_serialized(engine: sa.Engine, tmp_path: Path) -> None:
    rows = b"".join(b"r%d@example.com\n" % n for n in range(400))
    begun = open_import(engine, "people", write_csv(tmp_path / "people.csv", b"email\n" + rows), NOW)
    run_in_threads([lambda: import_slice(engine, begun.import_id, NOW, rows=50)] * 8)
    progress = import_progress(engine, begun.import_id)
    assert (progress.finished, sums(progress)) == (True, (400, 0, 0))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_imports_in_opposite_orders_do_not_deadlock(engine: sa.Engine, tmp_path: Path) -> None:
    rows = [b"r%05d@example.com\n" % n for n in range(3_000)]
    for attempt in range(3):
        one = write_csv(tmp_path / "one.csv", b"email\n" + b"".join(rows) + b"\n" * attempt)
        two = write_csv(tmp_path / "two.csv", b"email\n" + b"".join(rows[::-1]) + b"\n" * attempt)
        run_in_threads(
            [lambda: import_file(engine, "people", one, NOW), lambda: import_file(engine, "people", two, NOW)]  # noqa: B023
        )
    assert len(members(engine, "people")) == 3_000


def run_in_threads(tasks: list[Any]) -> None:
    failures: list[PostroadError | sa.exc.SQLAlchemyError] = []

    def run(task: Any) -> None:
        try:
            task()
        except (PostroadError, sa.exc.SQLAlchemyError) as error:
            failures.append(error)

    threads = [Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_memory_does_not_grow_with_the_file(engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    note = b"x" * 5_000
    with path.open("wb") as file:
        file.write(b"email,note\n")
        for n in range(10_000):
            file.write(b"r%d@example.com,%b\n" % (n, note))
    assert path.stat().st_size > 50_000_000
    tracemalloc.start()
    try:
        progress = open_import(engine, "people", path, NOW)
        while not progress.finished:
            progress = import_slice(engine, progress.import_id, NOW, rows=500)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sums(progress) == (10_000, 0, 0)
    assert peak_bytes < 20_000_000  # A slice is 2.5 MB, and a few copies of it exist at once.
