"""Which rows of a file become recipients, and which are refused: decided purely, for many at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from postroad.campaign.csv_header import ADDRESS, TIME_ZONE
from postroad.errors import DataError
from postroad.mail.address import domain_of, normalise_address
from postroad.settings.values import time_zones
from postroad.store.recipient import NewRecipient

encode_json = msgspec.json.Encoder().encode
decode_json = msgspec.json.Decoder(dict[str, str]).decode


class RefusedRow(NamedTuple):
    """A row that is not taken: its line, the field that is wrong, what stands there, and why it is wrong."""

    line: int
    field: str
    value: str
    reason: str


class ValidatedRows(NamedTuple):
    """What became of so many rows: recipients in order of their addresses, and what is refused. Others were double."""

    rows: int
    taken: list[NewRecipient]
    refused: list[RefusedRow]


def judge(columns: tuple[str, ...], rows: Iterable[tuple[int, list[str]]]) -> ValidatedRows:
    """Part rows, each with its line, into recipients and what is refused.

    Rows of one address are one recipient: of what they say, the last holds. None of the rows is kept meanwhile.
    """
    names = [name for name in columns if name not in (ADDRESS, TIME_ZONE)]
    address_at = columns.index(ADDRESS)
    # Where it stands once the address is taken out of the row.
    zone_at = None if TIME_ZONE not in columns else [name for name in columns if name != ADDRESS].index(TIME_ZONE)
    zones = time_zones() if zone_at is not None else frozenset()
    taken: dict[str, NewRecipient] = {}
    refused: list[RefusedRow] = []
    count = 0
    for line, fields in rows:
        count += 1
        values = list(map(str.strip, fields))
        written = values.pop(address_at)
        zone = values.pop(zone_at) if zone_at is not None else ""
        try:
            address = normalise_address(written)
        except DataError as error:
            refused.append(_refused(line, ADDRESS, fields[address_at], error.message))
            continue
        if zone and zone not in zones:
            refused.append(_refused(line, TIME_ZONE, zone, "it is no time zone of the IANA database"))
            continue
        attributes = dict(zip(names, values))  # noqa: B905  (a row has as many fields as there are columns)
        if "" in values:
            attributes = {name: value for name, value in attributes.items() if value}
        if address in taken:  # They merge as they would in slices of their own.
            _, _, earlier_zone, earlier = taken[address]
            zone, attributes = zone or earlier_zone or "", decode_json(earlier) | attributes
        taken[address] = (address, domain_of(address), zone or None, encode_json(attributes).decode())
    # In order: two imports that have the same addresses wait for each other, and never each for the other.
    return ValidatedRows(count, [taken[address] for address in sorted(taken)], refused)


def _refused(line: int, field: str, value: str, reason: str) -> RefusedRow:
    return RefusedRow(line, field, value[:320], reason[:200])
