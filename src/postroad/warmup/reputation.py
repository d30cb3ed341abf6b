"""Imports the CSV files in which mailbox providers report on our mail.

Google Postmaster Tools reports on domains, Microsoft's Smart Network Data Services (SNDS) on IP addresses. A file is
parsed as a whole before any of it is stored. A fault is a DataError that names file, line and field.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from postroad.errors import DataError
from postroad.mail.address import ascii_domain
from postroad.store.engine import write
from postroad.store.reputation import ReputationDay, ReputationSource, save_reputation

MAX_FILE_BYTES = 10 * 1024 * 1024
PROVIDERS = {ReputationSource.POSTMASTER: "google", ReputationSource.SNDS: "outlook"}

_DATE = ("date", "day")
_DOMAIN = ("domain", "domain_name")
_SHARES = ("user_reported_spam_ratio", "userreportedspamratio", "spam_ratio")
"""Names in the API of Postmaster Tools, whose values are shares: 0.003 is 0.3 %."""
_RATES = ("user_reported_spam_rate", "userreportedspamrate", "spam_rate", "user_reported_spam", "spam")

_SNDS_FIELDS = (
    *("IP address", "activity start", "activity end", "RCPT commands", "DATA commands", "message recipients"),
    *("filter result", "complaint rate", "trap message period start", "trap message period end", "trap hits"),
)
"""Columns of a file, which has no header line. Sample and comment columns follow; they are ignored."""
_SNDS_DATES = ("%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M", "%Y-%m-%d %H:%M", "%m/%d/%Y")
_POSTMASTER_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y")
_COLOURS = ("GREEN", "YELLOW", "RED")
_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
_PERCENT = re.compile(rf"([<>]?)\s*{_NUMBER}\s*%?\s*(?:-\s*{_NUMBER}\s*%?)?", re.ASCII)


class _Line(NamedTuple):
    """One line of a file. ``where`` names the file and the line."""

    where: str
    fields: list[str]

    def error(self, field: str, message: str, remedy: str | None = None) -> DataError:
        return DataError(message, where=f"{self.where}, field {field!r}", remedy=remedy or "Nothing was imported.")


class ReputationImport(NamedTuple):
    """Contents of an imported file. ``new``: number of days that were added or changed."""

    days: list[ReputationDay]
    new: int


def import_file(
    engine: sa.Engine, source: ReputationSource, path: Path, *, domain: str | None, now: datetime
) -> ReputationImport:
    """Store the contents of a report file, all or nothing. Importing a file twice changes nothing.

    Args:
        engine: Database to store the days in.
        source: The service that exported the file.
        path: The file.
        domain: Domain of a Postmaster Tools file that has no column with the domain.
        now: The time.

    Returns:
        The days of the file.

    Raises:
        DataError: The file is not valid; nothing is stored.
        UnavailableError: The database is unreachable.
    """
    days = read_postmaster(path, domain, now) if source is ReputationSource.POSTMASTER else read_snds(path, now)
    with write(engine) as connection:
        new = save_reputation(connection, days)
    return ReputationImport(days, new)


def read_postmaster(path: Path, domain: str | None, now: datetime) -> list[ReputationDay]:
    """Read an export of Postmaster Tools: a header line, then a line for each day. Lines without a rate are skipped.

    Args:
        path: The file.
        domain: Domain of all lines if the file has no column with the domain.
        now: The time; later days are an error.

    Returns:
        One day for each domain and date of the file.

    Raises:
        DataError: The file cannot be read or is not valid.
    """
    lines = _lines(path)
    head = next(lines, None)
    if head is None:
        raise DataError("the file is empty", where=str(path))
    names = [re.sub(r"[\W_]+", "_", name.strip().lower()).strip("_") for name in head.fields]
    date_at, rate_at = _column(head, names, _DATE, "Date"), _column(head, names, (*_SHARES, *_RATES), "Spam rate")
    domain_at = next((place for place, name in enumerate(names) if name in _DOMAIN), None)
    if domain_at is None and domain is None:
        raise DataError("the file does not name its domain", where=head.where, remedy="Name it with --domain.")
    named_percent = "%" in head.fields[rate_at] or "percent" in names[rate_at]
    unit = 0.01 if named_percent else 1.0 if names[rate_at] in _SHARES else None
    days = []
    for line in lines:
        if len(line.fields) != len(names):
            raise DataError(f"{len(line.fields)} fields where line 1 names {len(names)}", where=line.where)
        if not line.fields[rate_at].strip():
            continue
        subject = domain if domain is not None else line.fields[domain_at or 0]
        days.append(
            ReputationDay(
                source=ReputationSource.POSTMASTER,
                subject=_domain(line, subject or ""),
                day=_day(line, head.fields[date_at], line.fields[date_at], _POSTMASTER_DATES, now),
                provider=PROVIDERS[ReputationSource.POSTMASTER],
                spam_rate=_share(line, head.fields[rate_at], line.fields[rate_at], unit),
                imported_at=now,
            )
        )
    return _merge_by_day(days)


def read_snds(path: Path, now: datetime) -> list[ReputationDay]:
    """Read an export of SNDS: one line for each IP address and period of activity, usually without a header.

    Args:
        path: The file.
        now: The time; later days are an error.

    Returns:
        One day for each address and date of the file.

    Raises:
        DataError: The file cannot be read or is not valid.
    """
    days: list[ReputationDay] = []
    for line in _lines(path):
        if not days and line.fields[0].strip().lower().replace(" ", "") in ("ip", "ipaddress"):
            continue
        if len(line.fields) < len(_SNDS_FIELDS):
            raise DataError(
                f"{len(line.fields)} fields; a line of SNDS has {len(_SNDS_FIELDS)} and more",
                where=line.where,
                remedy="Take the file of “View data” or of the automated access. Nothing was imported.",
            )
        values = dict(zip(_SNDS_FIELDS, (field.strip() for field in line.fields), strict=False))
        days.append(
            ReputationDay(
                source=ReputationSource.SNDS,
                subject=_address(line, values["IP address"]),
                day=_day(line, "activity start", values["activity start"], _SNDS_DATES, now),
                provider=PROVIDERS[ReputationSource.SNDS],
                spam_rate=_parse_lower_bound(line, "complaint rate", values["complaint rate"]),
                messages=_count(line, "message recipients", values["message recipients"]),
                trap_hits=_count(line, "trap hits", values["trap hits"]),
                verdict=_colour(line, values["filter result"]),
                imported_at=now,
            )
        )
    return _merge_by_day(days)


def _lines(path: Path) -> Iterator[_Line]:
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(octets) > MAX_FILE_BYTES:
        raise DataError(
            f"the file has more than {MAX_FILE_BYTES:,} bytes", where=str(path), remedy="Export fewer days."
        )
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise DataError("not UTF-8", where=f"{path}, line {line}", remedy="Export it again as UTF-8.") from None
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DataError(f"not CSV: {error}", where=f"{path}, line {reader.line_num}") from None
        if fields is None:
            return
        if any(field.strip() for field in fields):
            yield _Line(f"{path}, line {reader.line_num}", fields)


def _column(head: _Line, names: Sequence[str], wanted: Sequence[str], title: str) -> int:
    # The unit may follow the name: "Spam rate (%)".
    places = [place for place, name in enumerate(names) if name.removesuffix("_percent") in wanted]
    if len(places) != 1:
        raise DataError(
            f"{len(places) or 'no'} column{'s' * (len(places) > 1)} for {title!r} among {', '.join(head.fields)}"[:300],
            where=head.where,
            remedy=f"Its first line names the columns, and one of them {title!r}.",
        )
    return places[0]


def _domain(line: _Line, text: str) -> str:
    try:
        name = ascii_domain(text.strip().rstrip(".").lower())
    except DataError as error:
        raise line.error("Domain", error.message) from None
    if "." not in name or len(name) > 253:
        raise line.error("Domain", f"{text!r} is not a domain")
    return name


def _address(line: _Line, text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise line.error("IP address", f"{text[:50]!r} is not an IP address") from None


def _day(line: _Line, field: str, text: str, forms: Iterable[str], now: datetime) -> date:
    for form in forms:
        try:
            day = datetime.strptime(" ".join(text.split()), form).date()  # noqa: DTZ007  (a day, by their clock)
        except ValueError:
            continue
        if day > now.date() + timedelta(days=1):
            raise line.error(field, f"{text!r} is in the future")
        return day
    remedy = "Write days as 2026-11-23: in 11/12/2026 the month is ambiguous." if "/" in text else None
    raise line.error(field, f"{text[:50]!r} is not a valid day", remedy)


def _share(line: _Line, field: str, text: str, unit: float | None) -> float:
    """Parse a rate to a share. ``unit``: factor for numbers without a percent sign, None if the column names none."""
    given = text.strip()
    if not re.fullmatch(rf"{_NUMBER}\s*%?", given, re.ASCII):
        raise line.error(field, f"{given[:50]!r} is not a rate")
    number = float(given.rstrip("% "))
    if given.endswith("%"):
        unit = 0.01
    if unit is None and number:
        raise line.error(
            field,
            f"{given!r} may be a percentage, or a share of one",
            "Write it with %, or call the column 'Spam rate (%)' or 'Spam ratio'. Nothing was imported.",
        )
    return _check_share(line, field, given, number * (unit or 0.01))


def _parse_lower_bound(line: _Line, field: str, text: str) -> float | None:
    """Return the lower bound of a rate or range of SNDS as a share: 0 for `< 0.1%`, which may be no complaint."""
    if not text or text in ("-", "N/A"):
        return None
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise line.error(field, f"{text[:50]!r} is not a rate")
    return 0.0 if match[1] == "<" else _check_share(line, field, text, float(match[2]) / 100)


def _check_share(line: _Line, field: str, text: str, share: float) -> float:
    if share > 1:
        raise line.error(field, f"{text!r} is more than 100 %")
    return round(share, 9)


def _count(line: _Line, field: str, text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise line.error(field, f"{text[:50]!r} is not a count")
    return int(text)


def _colour(line: _Line, text: str) -> str | None:
    if text and text.upper() not in _COLOURS:
        raise line.error("filter result", f"{text[:50]!r} is not one of {', '.join(_COLOURS)}")
    return text.upper() or None


def _merge_by_day(days: Iterable[ReputationDay]) -> list[ReputationDay]:
    """Merge the lines of one day: the worst rate and verdict, and the sums of the counts."""
    merged: dict[tuple[str, date], ReputationDay] = {}
    for day in days:
        before = merged.setdefault((day.subject, day.day), day)
        if before is not day:
            before.spam_rate = max((r for r in (before.spam_rate, day.spam_rate) if r is not None), default=None)
            before.messages = _sum(before.messages, day.messages)
            before.trap_hits = _sum(before.trap_hits, day.trap_hits)
            before.verdict = max((before.verdict, day.verdict), key=_severity)
    return list(merged.values())


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else other + (one or 0)


def _severity(colour: str | None) -> int:
    return -1 if colour is None else _COLOURS.index(colour)
