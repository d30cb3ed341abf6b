"""A list of addresses that nothing may be sent to, from a CSV."""

from __future__ import annotations

from pathlib import Path

from postroad.campaign.csv_file import ADDRESS, read_rows
from postroad.errors import DataError
from postroad.mail.address import normalise_address


def read_addresses(file: Path) -> list[str]:
    """Return the normalised addresses of a CSV. Raises DataError with the line of one that is none."""
    columns, rows = read_rows(file)
    at = columns.index(ADDRESS)
    addresses = []
    for row in rows:
        try:
            addresses.append(normalise_address(row.fields[at]))
        except DataError as error:
            raise DataError(
                f"address: {row.fields[at]!r}: {error.message}",
                where=f"{file}, line {row.line}",
                remedy="Mend or remove that row: a suppression that is not understood would not hold.",
            ) from None
    return addresses
