"""Validates events of recipients, and imports them from a CSV in steps.

An import may be interrupted and repeated: an event has a key, and is recorded once for its recipient and name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from postroad.campaign.csv_check import check_csv, require_unchanged
from postroad.campaign.csv_file import open_csv
from postroad.campaign.csv_header import ADDRESS, merge_field_name
from postroad.campaign.intake import RefusedRow, encode_json
from postroad.campaign.steps import NAME_PATTERN
from postroad.errors import DataError, StateError
from postroad.field_types import WRITE, FieldType, read_date_ms
from postroad.mail.address import normalise_address
from postroad.store.engine import write
from postroad.store.recipient_event import NewEvent, record_events

STEP_ROWS: Final = 1_000
"""Rows that one transaction records."""
MAX_FIELD_CHARACTERS: Final = 10_000
MAX_FIELDS: Final = 100
MAX_KEY_CHARACTERS: Final = 200
MAX_REFUSED: Final = 1_000
"""Refused rows that an import lists."""

EVENT, AT, KEY = "event", "at", "key"
"""Columns of a CSV of events, in addition to the address. Every other column is a field of the event."""


class EventError(DataError):
    """A value of an event is not valid. ``field``: which."""

    def __init__(self, field_name: str, value: str, message: str) -> None:
        super().__init__(f"{field_name}: {message}")
        self.field = field_name
        self.value = value
        self.reason = message


def event_name(text: str) -> str:
    """Return a valid name of an event. Raises EventError for another text."""
    name = text.strip()
    if not re.fullmatch(NAME_PATTERN, name):
        raise EventError(
            EVENT, text, "a name has at most 64 lower-case letters, digits, - and _, and begins with a letter or digit"
        )
    return name


def event_time(text: str, now: datetime) -> datetime:
    """Return the time of an event: ``now`` for an empty text. Raises EventError for a text that is not a date."""
    if not text.strip():
        return now
    at_ms = read_date_ms(text.strip())
    if at_ms is None:
        raise EventError(AT, text, f"write {WRITE[FieldType.DATE]}")
    if not 0 <= at_ms < _YEAR_3000_MS:
        raise EventError(AT, text, "the year is not between 1970 and 2999")
    return datetime.fromtimestamp(at_ms / 1000, UTC)


_YEAR_3000_MS: Final = 32_503_680_000_000


def event_key(text: str) -> str | None:
    """Return the key of an event, None for an empty text. Raises EventError for a text that cannot be a key."""
    key = text.strip()
    if len(key) > MAX_KEY_CHARACTERS or not key.isprintable():
        raise EventError(KEY, text, f"a key has at most {MAX_KEY_CHARACTERS} printable characters")
    return key or None


def event_fields(values: Mapping[str, str]) -> str:
    """Return the fields of an event as JSON, without the empty ones. Names become those of merge fields.

    Raises:
        EventError: A field has no valid name or is too long, or there are too many.
    """
    fields: dict[str, str] = {}
    for title, value in values.items():
        name, text = merge_field_name(title), value.strip()
        if not name.isidentifier():
            raise EventError(title or "a field", value, "its name has no letter first, or none at all")
        if name in fields:
            raise EventError(title, value, f"two fields have the name {name}")
        if len(text) > MAX_FIELD_CHARACTERS:
            raise EventError(title, text, f"it has more than {MAX_FIELD_CHARACTERS:,} characters")
        if "\0" in text:
            raise EventError(title, text, "it contains a NUL character")
        if text:
            fields[name] = text
    if len(fields) > MAX_FIELDS:
        raise EventError("fields", "", f"an event has at most {MAX_FIELDS} fields")
    return encode_json(fields).decode()


@dataclass(kw_only=True)
class EventImport:
    """Result of an import. ``rows == recorded + known + refused``.

    ``known``: events that were recorded before. ``refusals``: the first of the refused rows.
    """

    rows: int = 0
    recorded: int = 0
    known: int = 0
    refused: int = 0
    refusals: list[RefusedRow] = field(default_factory=list)


def import_events(
    engine: sa.Engine,
    path: Path,
    now: datetime,
    *,
    name: str | None = None,
    checked: Callable[[int], None] | None = None,
    report: Callable[[int, int], None] | None = None,
) -> EventImport:
    """Record the events of a CSV. The whole file is checked before an event is recorded.

    Args:
        engine: The database.
        path: The CSV, with columns `address`, `event`, and optionally `at`, `key` and fields.
        now: The time; also of events without a time.
        name: Name of the events whose row has no name.
        checked: Called with the number of bytes read while the file is checked.
        report: Called with the number of rows that are done and of all rows.

    Returns:
        The result.

    Raises:
        DataError: The file cannot be read, is not a CSV, has no names of events, or changed during the import.
    """
    summary = check_csv(path, checked)
    if EVENT not in summary.columns and name is None:
        raise DataError(
            "there is no column `event`", where=f"{path}, line 1", remedy="Add it, or name the events: --event NAME."
        )
    result = EventImport()
    with open_csv(path) as file:
        rows = iter(file)
        while step := list(islice(rows, STEP_ROWS)):
            require_unchanged(path, summary.sha256, now)
            _record_step(engine, file.columns, step, _Defaults(now, name), result)
            if report is not None:
                report(result.rows, summary.rows)
    return result


def record_event(engine: sa.Engine, event: NewEvent) -> bool:
    """Record one event of a known recipient.

    Args:
        engine: The database.
        event: The event.

    Returns:
        Whether it is new. False: its recipient has an event of that name and key.

    Raises:
        StateError: No recipient has the address.
    """
    with write(engine) as connection:
        done = record_events(connection, [event])
    if done.unknown:
        raise StateError(
            f"no recipient has the address {event.address}",
            remedy="Import the recipient first: `postroad audience import NAME FILE`.",
        )
    return bool(done.recorded)


@dataclass(frozen=True)
class _Defaults:
    now: datetime
    name: str | None


def _record_step(
    engine: sa.Engine,
    columns: tuple[str, ...],
    rows: Iterable[tuple[int, list[str]]],
    defaults: _Defaults,
    result: EventImport,
) -> None:
    events: list[tuple[int, NewEvent]] = []
    refused: list[RefusedRow] = []
    count = 0
    for line, values in rows:
        count += 1
        try:
            events.append((line, _event(dict(zip(columns, values, strict=True)), defaults)))
        except EventError as error:
            refused.append(RefusedRow(line, error.field, error.value[:320], error.reason[:200]))
    with write(engine) as connection:
        recorded = record_events(connection, [event for _, event in events])
    unknown = [
        RefusedRow(line, ADDRESS, event.address, "no recipient has this address")
        for line, event in events
        if event.address in recorded.unknown
    ]
    refused = sorted([*refused, *unknown])
    result.rows += count
    result.recorded += recorded.recorded
    result.refused += len(refused)
    result.known += count - recorded.recorded - len(refused)
    result.refusals += refused[: MAX_REFUSED - len(result.refusals)]


def _event(row: Mapping[str, str], defaults: _Defaults) -> NewEvent:
    """Return the event of a row. Without a key it gets one from its content, so that it is recorded once."""
    try:
        address = normalise_address(row[ADDRESS])
    except DataError as error:
        raise EventError(ADDRESS, row[ADDRESS], error.message) from None
    name = event_name(row.get(EVENT, "").strip() or defaults.name or "")
    at_text = row.get(AT, "")
    at = event_time(at_text, defaults.now)
    fields = event_fields({title: value for title, value in row.items() if title not in (ADDRESS, EVENT, AT, KEY)})
    key = event_key(row.get(KEY, ""))
    if key is None:
        content = encode_json([address, name, at_text.strip(), fields])
        key = f"content:{hashlib.sha256(content).hexdigest()}"
    return NewEvent(address, name, at, fields, key)
