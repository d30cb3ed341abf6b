"""Files of events: complete, in order, resumable, and never half."""

from __future__ import annotations

import json
import stat
import sys
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from postroad.errors import DataError, UsageError
from postroad.event_types import EventType
from postroad.events_out.export import EventFormat, ExportedSpan, atomic_file, export_events
from postroad.store.engine import read, write
from postroad.store.event_stream import newest_event
from postroad.store.ledger import TouchState
from tests.events_out.events import AT_MS, add_events, add_sent_touch
from tests.store.rows import NOW

HOUR_MS = 3_600_000


def fill(engine: sa.Engine, number: int) -> int:
    """Insert events an hour apart. Returns the last id."""
    with write(engine) as connection:
        touch = add_sent_touch(connection, "ada@example.com")
        for hours in range(number):
            state = TouchState.BOUNCED if hours % 4 == 3 else TouchState.ACCEPTED
            add_events(connection, touch, 1, at_ms=AT_MS + hours * HOUR_MS, state=state)
        return newest_event(connection)


def lines(output: BytesIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_an_export_continues_where_the_last_one_ended(engine: sa.Engine) -> None:
    end = fill(engine, 10)
    first, second = BytesIO(), BytesIO()
    done = export_events(engine, ExportedSpan(0, end - 4), first, EventFormat.NDJSON)
    assert (done.events, done.cursor) == (6, end - 4)
    done = export_events(engine, ExportedSpan(done.cursor, end), second, EventFormat.NDJSON)
    assert (done.events, done.cursor) == (4, end)
    both = lines(first) + lines(second)
    assert len({line["id"] for line in both}) == 10
    assert [line["timestamp"] for line in both] == sorted(str(line["timestamp"]) for line in both)
    again = export_events(engine, ExportedSpan(done.cursor, end), BytesIO(), EventFormat.NDJSON)
    assert (again.events, again.cursor) == (0, end)


def test_times_and_types_select_events(engine: sa.Engine) -> None:
    end = fill(engine, 12)
    output = BytesIO()
    since, until = NOW + timedelta(hours=3), NOW + timedelta(hours=8)
    span = ExportedSpan(0, end, since, until, frozenset({EventType.BOUNCED}))
    assert export_events(engine, span, output, EventFormat.NDJSON).events == 2
    assert {line["type"] for line in lines(output)} == {"message.bounced"}


def test_parquet_has_the_same_events_with_types(engine: sa.Engine, tmp_path: Path) -> None:
    end = fill(engine, 8)
    path = tmp_path / "events.parquet"
    with atomic_file(path) as output:
        export_events(engine, ExportedSpan(0, end), output, EventFormat.PARQUET)
    ndjson = BytesIO()
    export_events(engine, ExportedSpan(0, end), ndjson, EventFormat.NDJSON)
    table = pq.read_table(path)
    assert table.column("id").to_pylist() == [line["id"] for line in lines(ndjson)]
    assert table.column("at").to_pylist() == [NOW + timedelta(hours=hours) for hours in range(8)]
    assert set(table.column("recipient").to_pylist()) == {"ada@example.com"}
    assert str(table.schema.field("at").type) == "timestamp[us, tz=UTC]"


def test_parquet_without_its_package_is_a_usage_error(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pyarrow") as caught:
        export_events(engine, ExportedSpan(0, 0), BytesIO(), EventFormat.PARQUET)
    assert "postroad[parquet]" in (caught.value.remedy or "")


def test_a_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with atomic_file(path) as output:
            output.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]
    with atomic_file(path) as output:
        output.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(DataError, match="cannot be written"), atomic_file(tmp_path / "none" / "x"):
        pass


def test_an_error_of_the_database_is_not_taken_for_one_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError), atomic_file(tmp_path / "x"):
        raise UsageError("the cursor is wrong")


def test_a_large_export_is_read_in_pages(engine: sa.Engine) -> None:
    with write(engine) as connection:
        touch = add_sent_touch(connection)
        add_events(connection, touch, 2_500)
    with read(engine) as connection:
        end = newest_event(connection)
    seen: list[tuple[int, int]] = []
    done = export_events(
        engine, ExportedSpan(0, end), BytesIO(), EventFormat.NDJSON, lambda at, total: seen.append((at, total))
    )
    assert done.events == 2_500
    assert seen == [(1_000, end), (2_000, end), (2_500, end)]
