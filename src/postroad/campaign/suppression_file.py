"""Lists of what nothing may be sent to, as CSV: in, with errors by line, and out again."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

from postroad.campaign.csv_file import read_rows
from postroad.campaign.csv_header import ADDRESS
from postroad.errors import DataError
from postroad.mail.address import domain_of, normalise_address
from postroad.mail.address_hash import is_hash
from postroad.store.suppression import EVERYWHERE, Entry, Listed, SuppressionReason

T = TypeVar("T")

EXPORTED = (ADDRESS, "audience", "reason", "source", "created_at")


def suppression_key(text: str, hash_of: Callable[[str], str] | None = None) -> str:
    """Return what a suppression is kept by: an address, ``@domain`` or ``#hash``, in its one spelling.

    ``hash_of``: an address is kept as its hash. A domain is no person, and stays one. Raises DataError with the reason.
    """
    text = text.strip()
    if text.startswith("#"):
        if not is_hash(text.lower()):
            raise DataError("after # stand the 64 hexadecimal digits of a hashed address")
        return text.lower()
    if text.startswith("@"):
        return f"@{domain_of(normalise_address(f'postmaster{text}'))}"
    address = normalise_address(text)
    return hash_of(address) if hash_of is not None else address


def read_addresses(file: Path) -> list[str]:
    """Return the normalised addresses of a CSV. Raises DataError with the line of one that is none."""
    columns, rows = read_rows(file)
    at = columns.index(ADDRESS)
    return [_at_line(file, row.line, ADDRESS, row.fields[at], normalise_address) for row in rows]


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds for a row that does not say otherwise, and the audiences that rows may name, by name."""

    reason: SuppressionReason
    source: str
    now: datetime
    audience_id: int = EVERYWHERE
    audiences: Mapping[str, int]
    hash_of: Callable[[str], str] | None = None


def read_entries(file: Path, defaults: Defaults) -> list[Entry]:
    """Return the suppressions of a CSV, such as an export. Raises DataError with line and column of what is wrong.

    Columns beside `address`: audience, reason, source, created_at; others are passed over.
    """
    columns, rows = read_rows(file)
    return [_entry(file, row.line, dict(zip(columns, row.fields, strict=True)), defaults) for row in rows]


def _entry(file: Path, line: int, fields: Mapping[str, str], defaults: Defaults) -> Entry:
    def given(column: str) -> str:
        return fields.get(column, "").strip()

    address = _at_line(file, line, ADDRESS, fields[ADDRESS], lambda text: suppression_key(text, defaults.hash_of))
    reason, audience_id, created_at = defaults.reason, defaults.audience_id, defaults.now
    if text := given("reason"):
        reason = _at_line(file, line, "reason", text, _reason)
    if text := given("audience"):
        audience_id = _at_line(file, line, "audience", text, lambda name: _audience(name, defaults.audiences))
    if text := given("created_at"):
        created_at = _at_line(file, line, "created_at", text, _instant)
    return Entry(address, reason, (given("source") or defaults.source)[:200], created_at, audience_id)


def _reason(text: str) -> SuppressionReason:
    try:
        return SuppressionReason(text)
    except ValueError:
        raise DataError(f"it is none of {', '.join(SuppressionReason)}") from None


def _audience(name: str, audiences: Mapping[str, int]) -> int:
    if name not in audiences:
        raise DataError("there is no audience of that name")
    return audiences[name]


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise DataError("it is no instant, as 2027-01-31T09:00:00+00:00 is") from None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def _at_line(file: Path, line: int, column: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except DataError as error:
        raise DataError(
            f"{column}: {error.message}",
            where=f"{file}, line {line}",
            remedy="Mend or remove that row: a suppression that is not understood would not hold.",
        ) from None


class SupportsWrite(Protocol):
    """What text is written to: a file, or standard output."""

    def write(self, text: str, /) -> int: ...


def write_entries(file: SupportsWrite, listed: Sequence[Listed]) -> None:
    """Write suppressions as a CSV that `read_entries` reads again."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(EXPORTED)
    for one in listed:
        row = one._replace(audience=one.audience or "")
        writer.writerow([row.address, row.audience, row.reason, row.source, row.created_at.isoformat()])
