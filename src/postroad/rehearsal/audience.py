"""Makes the audience of a rehearsal: the campaign's own file, or as many rows of it as were asked for."""

from __future__ import annotations

import csv
from itertools import count
from pathlib import Path

from postroad.campaign.csv_file import read_rows
from postroad.campaign.csv_header import ADDRESS
from postroad.campaign.definition import CampaignFile
from postroad.errors import DataError, UsageError


def audience_file(file: CampaignFile, folder: Path, rows: int | None) -> Path:
    """Return a CSV with this many rows, or the campaign's own (None).

    Raises:
        UsageError: The campaign names no file.
        DataError: The file is not a CSV, or has no rows.
    """
    source = file.audience_file
    if source is None:
        raise UsageError(
            "the campaign names no file for its audience, and a rehearsal never opens the database that has it",
            where=f"{file.path}, audience.file",
            remedy="Name a CSV with the columns that its templates need.",
        )
    if rows is None:
        return source
    target = folder / "recipients.csv"
    _write(source, target, rows)
    return target


def _write(source: Path, target: Path, rows: int) -> None:
    """Copy rows; once all are there, again under other addresses, with the tag after a + kept."""
    columns, _ = read_rows(source)
    address = columns.index(ADDRESS)
    written = 0
    with target.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        for turn in count(1):
            before = written
            for row in read_rows(source)[1]:
                if written == rows:
                    return
                fields = list(row.fields)
                if turn > 1:
                    fields[address] = _renamed(fields[address], turn)
                writer.writerow(fields)
                written += 1
            if written == before:
                raise DataError("it has no rows", where=str(source))


def _renamed(address: str, turn: int) -> str:
    local_part, at, domain = address.rpartition("@")
    name, plus, tag = local_part.partition("+")
    return f"{name}-{turn}{plus}{tag}{at}{domain}"
