"""Validates rows of a file: which become recipients, and which are refused. Pure, for many rows at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from postroad.campaign.csv_header import ADDRESS, TIME_ZONE
from postroad.errors import DataError
from postroad.field_types import WRITE, FieldType, is_valid
from postroad.mail.address import domain_of, normalise_address
from postroad.settings.types import time_zones
from postroad.store.recipient import NewRecipient

NO_TYPES: Final[Mapping[str, FieldType]] = {}
_TEXT: Final = FieldType.TEXT

encode_json = msgspec.json.Encoder().encode
decode_json = msgspec.json.Decoder(dict[str, str]).decode


class RefusedRow(NamedTuple):
    """A row that is not imported: its line, the invalid field with its value, and the reason."""

    line: int
    field: str
    value: str
    reason: str


class ValidatedRows(NamedTuple):
    """Result of validating rows: recipients in order of their addresses, and refused rows. The rest are duplicates."""

    rows: int
    taken: list[NewRecipient]
    refused: list[RefusedRow]


def validate_rows(
    columns: tuple[str, ...], rows: Iterable[tuple[int, list[str]]], types: Mapping[str, FieldType] = NO_TYPES
) -> ValidatedRows:
    """Split rows into recipients and refused rows. The rows are not held in memory.

    Several rows of one address become one recipient, with the first line. For each merge field, the last value is used.

    Args:
        columns: Names of the columns.
        rows: Fields of each row, with its line number.
        types: Types of merge fields. A row with a value of another type is refused. Undeclared fields are text.

    Returns:
        The recipients and the refused rows.
    """
    names = [name for name in columns if name not in (ADDRESS, TIME_ZONE)]
    address_at = columns.index(ADDRESS)
    # Its index after the address was removed from the row.
    zone_at = None if TIME_ZONE not in columns else [name for name in columns if name != ADDRESS].index(TIME_ZONE)
    typed = [(place, name, types[name]) for place, name in enumerate(names) if types.get(name, _TEXT) is not _TEXT]
    zones = time_zones() if zone_at is not None else frozenset()
    taken: dict[str, NewRecipient] = {}
    refused: list[RefusedRow] = []
    count = 0
    for line, fields in rows:
        count += 1
        values = list(map(str.strip, fields))
        given = values.pop(address_at)
        zone = values.pop(zone_at) if zone_at is not None else ""
        try:
            address = normalise_address(given)
        except DataError as error:
            refused.append(_refused(line, ADDRESS, fields[address_at], error.message))
            continue
        if zone and zone not in zones:
            refused.append(_refused(line, TIME_ZONE, zone, "it is not a time zone of the IANA database"))
            continue
        if typed and (wrong := _first_invalid(typed, values)) is not None:
            name, value, kind = wrong
            refused.append(_refused(line, name, value, f"it is not {WRITE[kind]}"))
            continue
        attributes = dict(zip(names, values))  # noqa: B905  (a row has as many fields as there are columns)
        if "" in values:
            attributes = {name: value for name, value in attributes.items() if value}
        first_line: int | None = line
        if address in taken:  # Merge as two slices would be merged in the database.
            _, _, earlier_zone, earlier, first_line = taken[address]
            zone, attributes = zone or earlier_zone or "", decode_json(earlier) | attributes
        taken[address] = (address, domain_of(address), zone or None, encode_json(attributes).decode(), first_line)
    # Sorted, so that two concurrent imports with the same addresses lock rows in the same order and cannot deadlock.
    return ValidatedRows(count, [taken[address] for address in sorted(taken)], refused)


def _first_invalid(typed: list[tuple[int, str, FieldType]], values: list[str]) -> tuple[str, str, FieldType] | None:
    """Return the first value that its type does not allow, with its field and the type. An empty value is allowed."""
    for place, name, kind in typed:
        if values[place] and not is_valid(values[place], kind):
            return name, values[place], kind
    return None


def _refused(line: int, field: str, value: str, reason: str) -> RefusedRow:
    return RefusedRow(line, field, value[:320], reason[:200])
