"""Reading a CSV of recipients: in a stream, strictly, from any row on.

What is wrong with the file as a whole is a DataError that names file, line and column; nothing of such a file is kept.
"""

from __future__ import annotations

import csv
import hashlib
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from postroad.errors import DataError

MAX_LINE_BYTES = 1 << 20
MAX_COLUMNS = 200
_ADDRESS_NAMES = ("address", "email", "e_mail", "email_address", "mail")
_ZONE_NAMES = ("time_zone", "timezone", "tz")
ADDRESS = "address"
TIME_ZONE = "time_zone"


@dataclass(frozen=True, kw_only=True)
class CsvFacts:
    """What a checked file holds."""

    columns: tuple[str, ...]
    rows: int
    size_bytes: int
    sha256: str


class CsvRow(NamedTuple):
    """One row, and where the next one starts."""

    line: int
    fields: list[str]
    next_cursor: int
    next_line: int


class _Lines:
    """Decoded lines of a file from a byte on, counted."""

    def __init__(
        self, file: BinaryIO, path: Path, cursor: int, line: int, seen: Callable[[bytes], None] | None
    ) -> None:
        file.seek(cursor)
        self.file, self.path, self.cursor, self.line, self.seen = file, path, cursor, line, seen

    def __iter__(self) -> Iterator[str]:
        while raw := self.file.readline(MAX_LINE_BYTES + 1):
            if len(raw) > MAX_LINE_BYTES:
                raise DataError(
                    f"a line of more than {MAX_LINE_BYTES:,} bytes: this is no CSV of recipients",
                    where=self._where(),
                    remedy="Is it UTF-8 text with one recipient a line?",
                )
            if b"\0" in raw:
                raise DataError(
                    f"a NUL byte at column {raw.index(0) + 1}",
                    where=self._where(),
                    remedy="Export the file again as UTF-8 text.",
                )
            if self.seen is not None:
                self.seen(raw)
            try:
                text = raw.decode("utf-8-sig" if self.cursor == 0 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"not UTF-8: byte 0x{error.object[error.start]:02x} at column {error.start + 1}",
                    where=self._where(),
                    remedy="Export the file again as UTF-8 (in a spreadsheet: “CSV UTF-8”).",
                ) from None
            self.cursor += len(raw)
            self.line += 1
            yield text

    def _where(self) -> str:
        return f"{self.path}, line {self.line}"


def _identifier(title: str) -> str:
    # Composed, because macOS writes é as two characters. Not \W: it matches the marks that Hindi and Thai spell with.
    text = unicodedata.normalize("NFC", title.strip().lower())
    words = "".join(character if f"a{character}".isidentifier() else " " for character in text).split()
    return "_".join(words).strip("_")


def _header(path: Path, text: str) -> tuple[str, tuple[str, ...]]:
    delimiter = max((",", ";", "\t"), key=text.count)
    where = f"{path}, line 1"
    try:
        titles = next(csv.reader([text], delimiter=delimiter), [])
    except csv.Error as error:
        raise DataError(
            f"not CSV: {error}", where=where, remedy="Its first line must name the columns, and no more."
        ) from None
    if not any(title.strip() for title in titles):
        raise DataError(
            "the first line names no columns", where=where, remedy="Its first line must, one of them `address`."
        )
    columns = [_identifier(title) for title in titles]
    columns = [ADDRESS if name in _ADDRESS_NAMES else TIME_ZONE if name in _ZONE_NAMES else name for name in columns]
    if len(columns) > MAX_COLUMNS:
        raise DataError(f"{len(columns)} columns, and {MAX_COLUMNS} is the most", where=where)
    for number, name in enumerate(columns, start=1):
        if not name or not name.isidentifier():
            raise DataError(
                f"column {number} is called {titles[number - 1]!r}, which cannot be a merge field",
                where=where,
                remedy="Use letters, digits and underscores, a letter first.",
            )
        if name in columns[: number - 1]:
            raise DataError(f"two columns are called {name!r}", where=where, remedy="Rename or remove one of them.")
    if ADDRESS not in columns:
        raise DataError(
            f"there is no column `address` (or `email`) among {', '.join(columns)}",
            where=where,
            remedy="Name the column that holds the e-mail addresses `address`.",
        )
    return delimiter, tuple(columns)


def read_rows(
    path: Path, *, cursor: int = 0, line: int = 1, seen: Callable[[bytes], None] | None = None
) -> tuple[tuple[str, ...], Iterator[CsvRow]]:
    """Return the columns of a file, and its rows from a cursor on (a byte that an earlier row ended at).

    Blank lines are passed over. The iterator raises DataError at the first thing that is no CSV.
    """
    try:
        with path.open("rb") as file:
            head = next(iter(_Lines(file, path, 0, 1, None)), "")
            header_bytes = file.tell()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None
    delimiter, columns = _header(path, head)
    if cursor == 0 and seen is not None:
        with path.open("rb") as file:
            seen(file.read(header_bytes))
    start, first_line = (header_bytes, 2) if cursor == 0 else (cursor, line)
    return columns, _rows(path, len(columns), delimiter, start, first_line, seen)


def _rows(
    path: Path, width: int, delimiter: str, cursor: int, line: int, seen: Callable[[bytes], None] | None
) -> Iterator[CsvRow]:
    with path.open("rb") as file:
        lines = _Lines(file, path, cursor, line, seen)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            first_line = lines.line
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise DataError(
                    f"not CSV: {error}", where=f"{path}, line {first_line}", remedy="Is a quote in it never closed?"
                ) from None
            if fields is None:
                return
            if not fields:
                continue
            if len(fields) != width:
                raise DataError(
                    f"{len(fields)} fields where the first line names {width} columns",
                    where=f"{path}, line {first_line}",
                    remedy="Quote a field that has the delimiter in it. Nothing of the file was imported.",
                )
            yield CsvRow(first_line, fields, lines.cursor, lines.line)


def check_csv(path: Path, progress: Callable[[int], None] | None = None) -> CsvFacts:
    """Read all of a file before anything of it is kept. Calls progress with bytes read. Raises DataError."""
    digest = hashlib.sha256()
    size = 0

    def seen(raw: bytes) -> None:
        nonlocal size
        digest.update(raw)
        size += len(raw)

    columns, rows = read_rows(path, seen=seen)
    count = 0
    for _ in rows:
        count += 1
        if progress is not None and count % 10_000 == 0:
            progress(size)
    return CsvFacts(columns=columns, rows=count, size_bytes=size, sha256=digest.hexdigest())


def require_unchanged(path: Path, sha256: str, since: datetime) -> None:
    """Raises DataError where a file is not the one that was checked. Read again only if it was touched since."""
    try:
        status = path.stat()
        # ctime too: a copy may come with the time of its original.
        if max(status.st_mtime, status.st_ctime) < since.timestamp():
            return
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if digest != sha256:
        raise DataError(
            "the file changed while it was imported",
            where=str(path),
            remedy="Import it again: what it says now counts from its first line.",
        )
