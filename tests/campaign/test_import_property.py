"""For any division of an import into slices, the tables equal those of a small model."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroad.campaign.audience import import_slice, open_import
from postroad.errors import DataError
from postroad.mail.address import normalise_address
from tests.campaign.tables import empty_tables, members, recipients

NOW = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)

Row = tuple[str, str, str, str]  # address, zone and two merge fields

ADDRESSES = st.sampled_from(["a@example.com", "A@EXAMPLE.com ", "b@example.com", "ü@exämple.com", "c'd@x.de", "no", ""])
ZONES = st.sampled_from(["", "", "Europe/Berlin", "Asia/Kolkata", "Mars/Olympus"])
CELLS = st.one_of(
    st.sampled_from(["", "", " ", "x", '"', "a\nb", "null"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
)
ROWS = st.lists(st.tuples(ADDRESSES, ZONES, CELLS, CELLS), max_size=12)
FILES = st.lists(ROWS, min_size=1, max_size=3)
SLICES = st.lists(st.integers(1, 5), min_size=1, max_size=5)


@dataclass
class Model:
    """A model of the tables' content after some imports, row by row."""

    people: dict[str, tuple[str | None, dict[str, str]]] = field(default_factory=dict)

    def take(self, rows: Sequence[Row]) -> tuple[int, int, int]:
        """Take a file. Returns how many of its rows are imported, duplicates and refused."""
        brought: set[str] = set()
        imported = duplicates = refused = 0
        for written, zone, *cells in rows:
            try:
                address = normalise_address(written)
            except DataError:
                refused += 1
                continue
            if zone == "Mars/Olympus":
                refused += 1
                continue
            known_zone, known = self.people.get(address, (None, {}))
            given_ = {name: cell.strip() for name, cell in zip(("one", "two"), cells, strict=True) if cell.strip()}
            self.people[address] = (zone or known_zone, {**known, **given_})
            if address in brought:
                duplicates += 1
            else:
                imported += 1
            brought.add(address)
        return imported, duplicates, refused


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(files=FILES, slices=SLICES)
def test_the_result_does_not_depend_on_slices(
    engine: sa.Engine, tmp_path: Path, files: list[list[Row]], slices: list[int]
) -> None:
    empty_tables(engine)
    model = Model()
    current: dict[bytes, int] = {}  # files that are not imported again, with their rows
    for number, rows in enumerate(files):
        path = tmp_path / f"{number}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["email", "tz", "one", "two"])
            writer.writerows(rows)
        content = path.read_bytes()
        if content in current:
            expected = None
        else:
            expected = model.take(rows)
            if rows:  # Earlier imports are overtaken.
                current = {known: count for known, count in current.items() if not count}
            current[content] = len(rows)
        progress = open_import(engine, "people", path, NOW)
        for size in chain(slices, repeat(slices[-1])):
            if progress.finished:
                break
            progress = import_slice(engine, progress.import_id, NOW, rows=size)
            assert progress.imported + progress.duplicates + progress.refused == progress.rows_done
        assert progress.rows_done == progress.rows_total == len(rows)
        if expected is not None:
            assert (progress.imported, progress.duplicates, progress.refused) == expected
    assert recipients(engine) == model.people
    assert members(engine, "people") == set(model.people)
