"""Reads and writes suppression lists as CSV. Errors name the line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

from postroad.campaign.csv_file import read_rows
from postroad.campaign.csv_header import ADDRESS
from postroad.csv_cell import read_cell, text_cell
from postroad.errors import DataError
from postroad.mail.address import domain_of, normalise_address
from postroad.mail.address_hash import is_hash
from postroad.store.suppression import EVERYWHERE, Entry, Listed, SuppressionReason

T = TypeVar("T")

EXPORTED = (ADDRESS, "audience", "reason", "source", "created_at")


def suppression_key(text: str, hash_of: Callable[[str], str] | None = None) -> str:
    """Return the normalised key of a suppression: an address, ``@domain`` or ``#hash``.

    Args:
        text: The key as written.
        hash_of: Function that hashes an address, if suppressed addresses are stored as hashes. Domains are not
            hashed, because they are not personal data.

    Returns:
        The key.

    Raises:
        DataError: The text is not a valid key.
    """
    text = text.strip()
    if text.startswith("#"):
        if not is_hash(text.lower()):
            raise DataError("# must be followed by the 64 hexadecimal digits of a hashed address")
        return text.lower()
    if text.startswith("@"):
        return f"@{domain_of(normalise_address(f'postmaster{text}'))}"
    address = normalise_address(text)
    return hash_of(address) if hash_of is not None else address


def read_addresses(file: Path) -> list[str]:
    """Return the normalised addresses of a CSV. Raise DataError with the line of an invalid address."""
    columns, rows = read_rows(file)
    at = columns.index(ADDRESS)
    return [_parse_field(file, row.line, ADDRESS, read_cell(row.fields[at]), normalise_address) for row in rows]


@dataclass(frozen=True, kw_only=True)
class EntryDefaults:
    """Default values of a suppression, and the audiences that rows may name, by name."""

    reason: SuppressionReason
    source: str
    now: datetime
    audience_id: int = EVERYWHERE
    audiences: Mapping[str, int]
    hash_of: Callable[[str], str] | None = None


def read_entries(file: Path, defaults: EntryDefaults) -> list[Entry]:
    """Read the suppressions of a CSV, such as an export.

    Columns are `address` and optionally audience, reason, source and created_at. Other columns are ignored.

    Args:
        file: The CSV.
        defaults: Values for fields that a row does not have.

    Returns:
        The suppressions.

    Raises:
        DataError: A field is not valid; the error names line and column.
    """
    columns, rows = read_rows(file)
    return [_entry(file, row.line, dict(zip(columns, row.fields, strict=True)), defaults) for row in rows]


def _entry(file: Path, line: int, fields: Mapping[str, str], defaults: EntryDefaults) -> Entry:
    def given(column: str) -> str:
        return read_cell(fields.get(column, "").strip())

    address = _parse_field(file, line, ADDRESS, given(ADDRESS), lambda text: suppression_key(text, defaults.hash_of))
    reason, audience_id, created_at = defaults.reason, defaults.audience_id, defaults.now
    if text := given("reason"):
        reason = _parse_field(file, line, "reason", text, _parse_reason)
    if text := given("audience"):
        audience_id = _parse_field(file, line, "audience", text, lambda name: _find_audience(name, defaults.audiences))
    if text := given("created_at"):
        created_at = _parse_field(file, line, "created_at", text, _parse_time)
    return Entry(address, reason, (given("source") or defaults.source)[:200], created_at, audience_id)


def _parse_reason(text: str) -> SuppressionReason:
    try:
        return SuppressionReason(text)
    except ValueError:
        raise DataError(f"it is not one of {', '.join(SuppressionReason)}") from None


def _find_audience(name: str, audiences: Mapping[str, int]) -> int:
    if name not in audiences:
        raise DataError("there is no audience with that name")
    return audiences[name]


def _parse_time(text: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise DataError("it is not a timestamp such as 2027-01-31T09:00:00+00:00") from None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


def _parse_field(file: Path, line: int, column: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except DataError as error:
        raise DataError(
            f"{column}: {error.message}",
            where=f"{file}, line {line}",
            remedy="Correct or remove that row: an invalid suppression would have no effect.",
        ) from None


class SupportsWrite(Protocol):
    """A destination of text, such as a file or standard output."""

    def write(self, text: str, /) -> int: ...


def write_entries(file: SupportsWrite, listed: Sequence[Listed]) -> None:
    """Write suppressions as a CSV that `read_entries` can read."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(EXPORTED)
    for row in listed:
        address, source = text_cell(row.address), text_cell(row.source)
        writer.writerow([address, row.audience or "", row.reason, source, row.created_at.isoformat()])
