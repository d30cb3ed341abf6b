"""Types of merge fields, and how the text of a value is read. Imports, conditions and SQLite read values here.

PostgreSQL reads them with the same patterns, so that all parts agree about every value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final


class FieldType(StrEnum):
    """The type of a merge field. Values are stored as the text that the file contained."""

    TEXT = "text"
    NUMBER = "number"
    DATE = "date"
    YES_NO = "yes/no"


# 15 significant digits are compared: all parts use IEEE doubles. Without NaN, infinity and digits of other scripts.
NUMBER_PATTERN: Final = r"[+-]?([0-9]{1,30}([.][0-9]{0,30})?|[.][0-9]{1,30})([eE][+-]?[0-9]{1,2})?"

_MONTH_DAY = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
_LEAP_YEAR = "([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|1[26]|[3579][26])00)"
_ZONE = "(Z|[+-](0[0-9]|1[0-4]):?[0-5][0-9])"
DATE_PATTERN: Final = (
    f"([1-9][0-9]{{3}}-{_MONTH_DAY}|{_LEAP_YEAR}-02-29)"
    f"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{{1,6}})?)? ?{_ZONE}?)?"
)
"""A day, or a time of a day, in the calendar of ISO 8601. Days that do not exist do not match."""
ZONE_PATTERN: Final = f"[0-9] ?{_ZONE}"
"""What a time with a time zone ends with. A day alone does not."""

YES: Final = ("yes", "y", "true", "1", "on")
NO: Final = ("no", "n", "false", "0", "off")

WRITE: Final = {
    FieldType.TEXT: "text",
    FieldType.NUMBER: "a number, as in 1250 or -0.5, without separators of thousands",
    FieldType.DATE: "a date, as in 2026-05-31, 2026-05-31 09:30 (UTC) or 2026-05-31T09:30:00+02:00",
    FieldType.YES_NO: "yes or no",
}
"""How a value of each type is written, for errors."""

_number = re.compile(NUMBER_PATTERN).fullmatch
_date = re.compile(DATE_PATTERN).fullmatch
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def field_text(values: Mapping[str, object], name: str) -> str | None:
    """Return the text of a merge field, or None. An empty text, and a value that is not text, are the same as none."""
    text = values.get(name)
    return text if isinstance(text, str) and text else None


def read_number(text: str | None) -> float | None:
    """Return the number that a text contains, or None."""
    return float(text) if text is not None and _number(text) else None


def read_date_ms(text: str | None) -> int | None:
    """Return the time that a text contains, in ms since the epoch, or None.

    A day is its midnight in UTC. A time without a time zone is in UTC. Fractions of a millisecond are cut off.
    """
    if text is None or not _date(text):
        return None
    days = date(int(text[:4]), int(text[5:7]), int(text[8:10])).toordinal() - _EPOCH_DAY
    clock, offset_minutes = text[11:], 0
    if clock.endswith("Z"):
        clock = clock[:-1]
    elif (sign := max(clock.rfind("+"), clock.rfind("-"))) > 0:
        zone = clock[sign + 1 :].replace(":", "")
        offset_minutes = (int(zone[:2]) * 60 + int(zone[2:])) * (-1 if clock[sign] == "-" else 1)
        clock = clock[:sign]
    hours, minutes, seconds, fraction = (
        clock[:2] or "0",
        clock[3:5] or "0",
        clock[6:8].strip() or "0",
        clock[9:].strip(),
    )
    total_minutes = days * 1440 + int(hours) * 60 + int(minutes) - offset_minutes
    return (total_minutes * 60 + int(seconds)) * 1000 + int(fraction[:3].ljust(3, "0") if fraction else 0)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(at: datetime) -> int:
    """Return a time in ms since the epoch, as `read_date_ms` returns it."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def read_yes_no(text: str) -> bool | None:
    """Return whether a text means yes, or None if it means neither yes nor no. Letter case is ignored."""
    word = text.lower()
    return True if word in YES else False if word in NO else None


def is_valid(text: str, kind: FieldType) -> bool:
    """Return whether a text is a value of a type."""
    match kind:
        case FieldType.TEXT:
            return True
        case FieldType.NUMBER:
            return read_number(text) is not None
        case FieldType.DATE:
            return read_date_ms(text) is not None
        case FieldType.YES_NO:
            return read_yes_no(text) is not None


# Latin, Greek, Cyrillic and Armenian letters that have one lower-case letter. One table for all databases: their own
# functions differ by version, locale and library.
_PAIRS = [
    (chr(code), chr(code).lower())
    for code in range(0x41, 0x588)
    if chr(code).lower() != chr(code) and len(chr(code).lower()) == 1
]
UPPER_LETTERS: Final = "".join(upper for upper, _ in _PAIRS)
LOWER_LETTERS: Final = "".join(lower for _, lower in _PAIRS)
_LOWER = str.maketrans(UPPER_LETTERS, LOWER_LETTERS)


def lower_text(text: str | None) -> str | None:
    """Return a text with its Latin, Greek, Cyrillic and Armenian capitals in lower case; None of None."""
    return text.translate(_LOWER) if text is not None else None
