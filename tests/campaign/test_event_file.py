"""Events of a CSV: recorded once, refused with line and field, on SQLite and PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.campaign import event_file
from postroad.campaign.event_file import EventImport, import_events
from postroad.errors import DataError
from postroad.store.engine import read, write
from postroad.store.recipient_event import KnownEvent, events_of
from tests.store.rows import NOW, add_recipient

ADA, BOB = "ada@example.com", "bob@example.org"


@pytest.fixture
def people(engine: sa.Engine) -> sa.Engine:
    with write(engine) as connection:
        add_recipient(connection, ADA)
        add_recipient(connection, BOB)
    return engine


def a_file(folder: Path, *lines: str, name: str = "events.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def events(engine: sa.Engine, address: str = ADA) -> list[KnownEvent]:
    with read(engine) as connection:
        return events_of(connection, address, 100)


def counts(done: EventImport) -> tuple[int, int, int]:
    assert done.rows == done.recorded + done.known + done.refused
    return done.recorded, done.known, done.refused


def test_columns_become_time_key_and_fields(people: sa.Engine, tmp_path: Path) -> None:
    path = a_file(
        tmp_path,
        "email,event,at,key,Total Amount,note",
        f"{ADA.upper()},paid,2026-05-01T10:00:00+02:00,order-1, 49.90 ,",
        f"{BOB},signed-up,,,,grüße",
    )
    assert counts(import_events(people, path, NOW)) == (2, 0, 0)
    assert events(people) == [
        KnownEvent("paid", datetime(2026, 5, 1, 8, tzinfo=UTC), "order-1", {"total_amount": "49.90"})
    ]
    [signed_up] = events(people, BOB)
    assert (signed_up.name, signed_up.at, signed_up.fields) == ("signed-up", NOW, {"note": "grüße"})


def test_an_event_is_recorded_once_by_its_key_or_its_content(people: sa.Engine, tmp_path: Path) -> None:
    rows = ("address,event,at,key,amount", f"{ADA},paid,2026-05-01,1,5", f"{ADA},paid,2026-05-01,,5")
    path = a_file(tmp_path, *rows)
    assert counts(import_events(people, path, NOW)) == (2, 0, 0)
    assert counts(import_events(people, path, NOW + timedelta(days=1))) == (0, 2, 0)
    other = a_file(
        tmp_path,
        "address,event,at,key,amount",
        f"{ADA},paid,2026-06-01,1,7",  # the same key
        f"{ADA},refunded,2026-06-01,1,7",  # of another name
        f"{BOB},paid,2026-06-01,1,7",  # of another recipient
        f"{ADA},paid,2026-05-01,,6",  # other content
        f"{ADA},paid,2026-05-01,,6",
        name="other.csv",
    )
    assert counts(import_events(people, other, NOW)) == (3, 2, 0)


def test_an_interrupted_import_is_completed_by_running_it_again(
    people: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "STEP_ROWS", 3)
    path = a_file(tmp_path, "address,event,n", *(f"{ADA},visited,{n}" for n in range(10)))

    def stop(done: int, total: int) -> None:
        assert total == 10
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_events(people, path, NOW, report=stop)
    assert len(events(people)) == 6
    assert counts(import_events(people, path, NOW)) == (4, 6, 0)
    assert sorted(int(event.fields["n"]) for event in events(people)) == list(range(10))


def test_rows_are_refused_with_line_field_and_reason(people: sa.Engine, tmp_path: Path) -> None:
    path = a_file(
        tmp_path,
        "address,event,at,key,amount",
        "nowhere,paid,,,",
        f"{ADA},Paid Twice,,,",
        f"{ADA},paid,31.05.2026,,",
        f"{ADA},paid,2026-02-30,,",
        f"{ADA},paid,9999-12-31,,",
        f"{ADA},paid,,{'k' * 201},",
        f"{ADA},,,,",
        "eve@example.net,paid,,,",
        f'{ADA},paid,,,"{"x" * 10_001}"',
        f"{ADA},paid,,,5",
    )
    done = import_events(people, path, NOW)
    assert counts(done) == (1, 0, 9)
    assert [(row.line, row.field) for row in done.refusals] == [
        (2, "address"),
        (3, "event"),
        (4, "at"),
        (5, "at"),
        (6, "at"),
        (7, "key"),
        (8, "event"),
        (9, "address"),
        (10, "amount"),
    ]
    assert done.refusals[2].value == "31.05.2026"
    assert "2026-05-31" in done.refusals[2].reason
    assert done.refusals[7].reason == "no recipient has this address"


def test_events_without_a_name_need_one(people: sa.Engine, tmp_path: Path) -> None:
    path = a_file(tmp_path, "address,amount", f"{ADA},5")
    with pytest.raises(DataError, match="no column `event`"):
        import_events(people, path, NOW)
    assert counts(import_events(people, path, NOW, name="paid")) == (1, 0, 0)
    assert [event.name for event in events(people)] == ["paid"]


def test_a_file_that_is_no_csv_records_nothing(people: sa.Engine, tmp_path: Path) -> None:
    path = a_file(tmp_path, "address,event", f"{ADA},paid", f"{ADA},paid,more")
    with pytest.raises(DataError, match="3 fields where the first line names 2"):
        import_events(people, path, NOW)
    assert events(people) == []


def test_two_imports_at_once_record_each_event_once(people: sa.Engine, tmp_path: Path) -> None:
    path = a_file(tmp_path, "address,event,n", *(f"{(ADA, BOB)[n % 2]},visited,{n}" for n in range(3_000)))
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda _: import_events(people, path, NOW), range(3)))
    assert sum(one.recorded for one in done) == 3_000
    assert all(one.refused == 0 for one in done)
    with read(people) as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM recipient_event")).scalar() == 3_000
