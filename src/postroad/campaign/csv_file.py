"""Reading a CSV of recipients: in a stream, strictly, from any row on.

What is wrong with the file as a whole is a DataError that names file, line and column; nothing of such a file is kept.
"""

from __future__ import annotations

import csv
import hashlib
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader, BytesIO
from itertools import chain, starmap
from operator import itemgetter, length_hint
from pathlib import Path
from typing import BinaryIO, NamedTuple

from postroad.campaign.csv_header import MAX_COLUMNS, holds_addresses, name_columns
from postroad.campaign.reading import ALLOW_IT, FileRefusedError, FileRules, open_regular
from postroad.errors import DataError

MAX_LINE_BYTES = 1 << 20
MAX_ROW_BYTES = 1 << 20
"""Of a row of several lines; it is found when a block of lines ends within it."""
_BLOCK_BYTES = 1 << 16
_AS_UTF_8 = "Export the file again as UTF-8 (in a spreadsheet: “CSV UTF-8”)."


@dataclass(frozen=True, kw_only=True)
class CsvSummary:
    """What a checked file holds."""

    columns: tuple[str, ...]
    rows: int
    size_bytes: int
    sha256: str


class FilePosition(NamedTuple):
    """Where a row starts, or the file ends: a byte, counted from 0, and a line, counted from 1."""

    cursor: int
    line: int


class CsvRow(NamedTuple):
    """One row, and the line that it starts at."""

    line: int
    fields: list[str]


class _Text:
    """The text of a file from a place on, line by line; it is read, checked and decoded in blocks of whole lines."""

    def __init__(self, file: BinaryIO, path: Path, start: FilePosition, seen: Callable[[bytes], None] | None) -> None:
        file.seek(start.cursor)
        self._file, self._path, self._seen = file, path, seen
        self._block, self._next = start, start
        self.row_line = start.line
        """Where the row starts that is being read: whoever reads rows keeps it."""
        self._row_bytes = 0
        self._raw: list[bytes] = []
        self._lines: Iterator[str] = iter(())

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._blocks())

    @property
    def cursor(self) -> int:
        """The byte behind the last line that was taken."""
        taken = len(self._raw) - length_hint(self._lines)
        return self._block.cursor + sum(map(len, self._raw[:taken]))

    def _blocks(self) -> Iterator[Iterator[str]]:
        while raw := self._file.read(_BLOCK_BYTES):
            # Up to more than a line may have: what is checked below is a whole line, or too much of one.
            raw += self._file.readline(MAX_LINE_BYTES + 1)
            self._require_end_of_row()
            self._block = self._next
            self._check(raw)
            if self._seen is not None:
                self._seen(raw)
            self._raw = BytesIO(raw).readlines()
            self._lines = iter(self._decoded())
            self._next = FilePosition(self._block.cursor + len(raw), self._block.line + len(self._raw))
            yield self._lines

    def _require_end_of_row(self) -> None:
        """Raises DataError where a row goes on for too long: usually a quote in it is never closed."""
        if self.row_line > self._block.line:
            self._row_bytes = 0
        self._row_bytes += self._next.cursor - self._block.cursor
        if self._row_bytes > MAX_ROW_BYTES:
            raise DataError(
                f"a row of more than {MAX_ROW_BYTES:,} bytes starts here",
                where=f"{self._path}, line {self.row_line}",
                remedy="Is a quote in it never closed?",
            )

    def _check(self, raw: bytes) -> None:
        last = raw.rfind(b"\n", 0, -1) + 1
        if len(raw) - last > MAX_LINE_BYTES:
            raise DataError(
                f"a line of more than {MAX_LINE_BYTES:,} bytes: this is no CSV of recipients",
                where=self._where(raw, last),
                remedy="Is it UTF-8 text with one recipient a line?",
            )
        at = raw.find(b"\0")
        if at >= 0:
            column = at - raw.rfind(b"\n", 0, at)
            raise DataError(
                f"a NUL byte at column {column}",
                where=self._where(raw, at),
                remedy="Export the file again as UTF-8 text.",
            )

    def _decoded(self) -> list[str]:
        try:
            return list(map(bytes.decode, self._raw))
        except UnicodeDecodeError as error:
            raise DataError(
                f"not UTF-8 at column {error.start + 1}",
                where=f"{self._path}, line {self._block.line + self._raw.index(error.object)}",
                remedy=_AS_UTF_8,
            ) from None

    def _where(self, raw: bytes, at: int) -> str:
        line = self._block.line + raw.count(b"\n", 0, at)
        return f"{self._path}, line {line}"


class _Header(NamedTuple):
    """The first row: how it separates fields, what it names, and where the next row starts."""

    delimiter: str
    columns: tuple[str, ...]
    end: FilePosition


def _read_header(file: BinaryIO, path: Path) -> _Header:
    """Read the first row, in which quoted titles may have delimiters and line breaks.

    The delimiter is that by which a column of addresses is found; else that by which most columns are.
    """
    start, delimiters = _start_of_header(file, path)
    found: list[tuple[tuple[bool, int], list[str], str, FilePosition]] = []
    wrong: csv.Error | None = None
    for delimiter in delimiters:
        text = _Text(file, path, start, None)
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            titles = next(reader, [])
        except csv.Error as error:
            wrong = wrong or error
            continue
        end = FilePosition(text.cursor, start.line + reader.line_num)
        found.append(((holds_addresses(titles), len(titles)), titles, delimiter, end))
    where = f"{path}, line {start.line}"
    (has_address, count), titles, delimiter, end = max(found, key=itemgetter(0), default=((False, 0), [], "", start))
    if wrong is not None and not has_address and count <= 1:
        raise DataError(f"not CSV: {wrong}", where=where, remedy="Is a quote in the first line never closed?")
    try:
        return _Header(delimiter, name_columns(titles), end)
    except DataError as error:
        raise DataError(error.message, where=where, remedy=error.remedy) from None


def _start_of_header(file: BinaryIO, path: Path) -> tuple[FilePosition, Sequence[str]]:
    """Return where the first row starts and by what it may be separated. Raises DataError for UTF-16."""
    file.seek(0)
    begin = file.read(16)
    if begin.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in begin[:4]:
        at = begin.find(b"\0") + 1
        raise DataError(
            f"{f'a NUL byte at column {at}' if at else 'not UTF-8 at column 1'}: the file is UTF-16 or UTF-32",
            where=f"{path}, line 1",
            remedy=_AS_UTF_8,
        )
    mark = len(BOM_UTF8) if begin.startswith(BOM_UTF8) else 0
    if told := _DELIMITER_LINE.match(begin, mark):
        return FilePosition(told.end(), 2), (told[1].decode(),)
    return FilePosition(mark, 1), (",", ";", "\t")


_DELIMITER_LINE = re.compile(rb'"?sep=([!-~\t])"?\r?\n', re.IGNORECASE)
"""A first line by which Excel says what separates fields."""


class CsvFile:
    """An open CSV: its columns, and its rows from a place on, each with the line that it starts at.

    Blank lines are passed over. Iterating raises DataError at the first thing that is no CSV.
    """

    def __init__(
        self, file: BinaryIO, path: Path, start: FilePosition | None, seen: Callable[[bytes], None] | None
    ) -> None:
        header = _read_header(file, path)
        self.columns = header.columns
        if start is None and seen is not None:
            file.seek(0)
            seen(file.read(header.end.cursor))
        self._path = path
        self._start = start or header.end
        self._text = _Text(file, path, self._start, seen)
        self._reader = csv.reader(self._text, delimiter=header.delimiter, strict=True)

    @property
    def place(self) -> FilePosition:
        """Where the next row starts."""
        return FilePosition(self._text.cursor, self._start.line + self._reader.line_num)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        width, first_line = len(self.columns), self._start.line
        line = first_line + self._reader.line_num
        try:
            for fields in self._reader:
                if len(fields) == width:
                    yield line, fields
                elif fields:
                    self._require_empty_end(fields, line)
                    yield line, fields[:width]
                line = self._text.row_line = first_line + self._reader.line_num
        except csv.Error as error:
            raise DataError(
                f"not CSV: {error}", where=f"{self._path}, line {line}", remedy="Is a quote in it never closed?"
            ) from None

    def _require_empty_end(self, fields: list[str], line: int) -> None:
        """Raises DataError unless all that a row has more than there are columns are some empty fields."""
        width = len(self.columns)
        if len(fields) < width or len(fields) > MAX_COLUMNS or any(map(str.strip, fields[width:])):
            raise DataError(
                f"{len(fields)} fields where the first line names {width} columns",
                where=f"{self._path}, line {line}",
                remedy="Quote a field that has the delimiter in it. Nothing of the file was imported.",
            )


def open_file(path: Path, rules: FileRules | None = None) -> BufferedReader:
    """Open a regular file. Raises DataError."""
    try:
        return rules.open(path) if rules is not None else open_regular(path)
    except FileRefusedError as error:
        raise DataError(str(error), where=str(path), remedy=ALLOW_IT) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None


@contextmanager
def open_csv(
    path: Path,
    *,
    start: FilePosition | None = None,
    seen: Callable[[bytes], None] | None = None,
    rules: FileRules | None = None,
) -> Iterator[CsvFile]:
    """Open a CSV, to read it from a place on (None: from its first row). Calls ``seen`` with all that is read.

    ``rules``: where it may be; None: anywhere, as the operator named it.
    Raises DataError when it cannot be read, or its first line names no columns. No error quotes what the file holds.
    """
    with open_file(path, rules) as file:
        yield CsvFile(file, path, start, seen)


def read_rows(path: Path) -> tuple[tuple[str, ...], Iterator[CsvRow]]:
    """Return the columns of a file, and its rows. The iterator raises DataError at the first thing that is no CSV."""
    with open_csv(path) as file:
        columns = file.columns
    return columns, _rows(path)


def _rows(path: Path) -> Iterator[CsvRow]:
    with open_csv(path) as file:
        yield from starmap(CsvRow, file)


def check_csv(path: Path, progress: Callable[[int], None] | None = None, rules: FileRules | None = None) -> CsvSummary:
    """Read all of a file before anything of it is kept. Calls progress with bytes read. Raises DataError."""
    digest = hashlib.sha256()
    count = 0
    with open_csv(path, seen=digest.update, rules=rules) as file:
        for count, _ in enumerate(file, start=1):
            if count % 10_000 == 0 and progress is not None:
                progress(file.place.cursor)
        return CsvSummary(columns=file.columns, rows=count, size_bytes=file.place.cursor, sha256=digest.hexdigest())


def require_unchanged(path: Path, sha256: str, since: datetime) -> None:
    """Raises DataError where a file is not the one that was checked. Read again only if it was touched since."""
    try:
        status = path.stat()
        # ctime too: a copy may come with the time of its original.
        if max(status.st_mtime, status.st_ctime) < since.timestamp():
            return
        with open_file(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if digest != sha256:
        raise DataError(
            "the file changed while it was imported",
            where=str(path),
            remedy="Import it again: what it says now counts from its first line.",
        )
