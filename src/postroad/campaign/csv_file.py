"""Reads a CSV of recipients as a stream, strictly, from any row on.

A fault of the file as a whole is a DataError that names file, line and column. Nothing of such a file is imported.
"""

from __future__ import annotations

import csv
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from itertools import chain, starmap
from operator import itemgetter, length_hint
from pathlib import Path
from typing import BinaryIO, NamedTuple

from postroad.campaign.csv_header import MAX_COLUMNS, has_address_column, name_columns
from postroad.campaign.file_access import ALLOW_IT, FileRefusedError, FileRules, open_regular
from postroad.errors import DataError

MAX_LINE_BYTES = 1 << 20
MAX_ROW_BYTES = 1 << 20
"""Limit of a row with several lines. It is checked when a block of lines ends within the row."""
_BLOCK_BYTES = 1 << 16
_AS_UTF_8 = "Export the file again as UTF-8 (in a spreadsheet: “CSV UTF-8”)."


class FilePosition(NamedTuple):
    """Start of a row, or end of the file: byte offset, from 0, and line number, from 1."""

    cursor: int
    line: int


class CsvRow(NamedTuple):
    """One row with the number of its first line."""

    line: int
    fields: list[str]


class _Text:
    """Yields the lines of a file from a position on. They are read, checked and decoded in blocks of whole lines."""

    def __init__(
        self, file: BinaryIO, path: Path, start: FilePosition, on_read: Callable[[bytes], None] | None
    ) -> None:
        file.seek(start.cursor)
        self._file, self._path, self._on_read = file, path, on_read
        self._block, self._next = start, start
        self.row_line = start.line
        """Line number at which the current row starts. The reader of the rows updates it."""
        self._row_bytes = 0
        self._raw: list[bytes] = []
        self._lines: Iterator[str] = iter(())

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._blocks())

    @property
    def cursor(self) -> int:
        """Byte offset after the last line that was yielded."""
        taken = len(self._raw) - length_hint(self._lines)
        return self._block.cursor + sum(map(len, self._raw[:taken]))

    def _blocks(self) -> Iterator[Iterator[str]]:
        while raw := self._file.read(_BLOCK_BYTES):
            # Complete the last line. The limit makes a longer line fail the check below.
            raw += self._file.readline(MAX_LINE_BYTES + 1)
            self._require_end_of_row()
            self._block = self._next
            self._check(raw)
            if self._on_read is not None:
                self._on_read(raw)
            self._raw = BytesIO(raw).readlines()
            self._lines = iter(self._decoded())
            self._next = FilePosition(self._block.cursor + len(raw), self._block.line + len(self._raw))
            yield self._lines

    def _require_end_of_row(self) -> None:
        """Raise DataError if the current row is too long, usually because a quote in it is not closed."""
        if self.row_line > self._block.line:
            self._row_bytes = 0
        self._row_bytes += self._next.cursor - self._block.cursor
        if self._row_bytes > MAX_ROW_BYTES:
            raise DataError(
                f"a row of more than {MAX_ROW_BYTES:,} bytes starts here",
                where=f"{self._path}, line {self.row_line}",
                remedy="Is a quote in it not closed?",
            )

    def _check(self, raw: bytes) -> None:
        last = raw.rfind(b"\n", 0, -1) + 1
        if len(raw) - last > MAX_LINE_BYTES:
            raise DataError(
                f"a line of more than {MAX_LINE_BYTES:,} bytes: this is not a CSV of recipients",
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
    """The first row: its delimiter, its column names, and the position of the next row."""

    delimiter: str
    columns: tuple[str, ...]
    end: FilePosition


def _read_header(file: BinaryIO, path: Path) -> _Header:
    """Read the first row, whose quoted titles may contain delimiters and line breaks.

    The delimiter is the one that yields a column of addresses, or else the one that yields the most columns.

    Returns:
        The header.

    Raises:
        DataError: The first row is not CSV, or does not name the columns.
    """
    start, delimiters = _start_of_header(file, path)
    candidates: list[tuple[tuple[bool, int], list[str], str, FilePosition]] = []
    csv_error: csv.Error | None = None
    for delimiter in delimiters:
        text = _Text(file, path, start, None)
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            titles = next(reader, [])
        except csv.Error as error:
            csv_error = csv_error or error
            continue
        end = FilePosition(text.cursor, start.line + reader.line_num)
        candidates.append(((has_address_column(titles), len(titles)), titles, delimiter, end))
    where = f"{path}, line {start.line}"
    no_header = ((False, 0), list[str](), "", start)
    (has_address, count), titles, delimiter, end = max(candidates, key=itemgetter(0), default=no_header)
    if csv_error is not None and not has_address and count <= 1:
        raise DataError(f"not CSV: {csv_error}", where=where, remedy="Is a quote in the first line not closed?")
    try:
        return _Header(delimiter, name_columns(titles), end)
    except DataError as error:
        raise DataError(error.message, where=where, remedy=error.remedy) from None


def _start_of_header(file: BinaryIO, path: Path) -> tuple[FilePosition, Sequence[str]]:
    """Return the position of the first row and its possible delimiters. Raise DataError for UTF-16 and UTF-32."""
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
    if match := _DELIMITER_LINE.match(begin, mark):
        return FilePosition(match.end(), 2), (match[1].decode(),)
    return FilePosition(mark, 1), (",", ";", "\t")


_DELIMITER_LINE = re.compile(rb'"?sep=([!-~\t])"?\r?\n', re.IGNORECASE)
"""A first line in which Excel names the delimiter."""


class CsvFile:
    """An open CSV: its columns, and its rows from a position on, each with the number of its first line.

    Blank lines are skipped. Iterating raises DataError at the first row that is not CSV.
    """

    def __init__(
        self, file: BinaryIO, path: Path, start: FilePosition | None, on_read: Callable[[bytes], None] | None
    ) -> None:
        header = _read_header(file, path)
        self.columns = header.columns
        if start is None and on_read is not None:
            file.seek(0)
            on_read(file.read(header.end.cursor))
        self._path = path
        self._start = start or header.end
        self._text = _Text(file, path, self._start, on_read)
        self._reader = csv.reader(self._text, delimiter=header.delimiter, strict=True)

    @property
    def position(self) -> FilePosition:
        """Position of the next row."""
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
                f"not CSV: {error}", where=f"{self._path}, line {line}", remedy="Is a quote in it not closed?"
            ) from None

    def _require_empty_end(self, fields: list[str], line: int) -> None:
        """Raise DataError unless the row only has additional empty fields."""
        width = len(self.columns)
        if len(fields) < width or len(fields) > MAX_COLUMNS or any(map(str.strip, fields[width:])):
            raise DataError(
                f"{len(fields)} fields where the first line names {width} columns",
                where=f"{self._path}, line {line}",
                remedy="Quote a field that contains the delimiter. Nothing of the file was imported.",
            )


def open_file(path: Path, rules: FileRules | None = None) -> BufferedReader:
    """Open a regular file, if the rules allow it.

    Args:
        path: The file.
        rules: Folders that the file may be in. None: any, because the operator named the file.

    Returns:
        The file, open for reading.

    Raises:
        DataError: The file cannot be opened, or the rules do not allow it.
    """
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
    on_read: Callable[[bytes], None] | None = None,
    rules: FileRules | None = None,
) -> Iterator[CsvFile]:
    """Open a CSV. No error quotes its content.

    Args:
        path: The file.
        start: Position of the first row to read. None: the first row of the file.
        on_read: Called with all bytes that are read.
        rules: Folders that the file may be in. None: any, because the operator named the file.

    Yields:
        The open file.

    Raises:
        DataError: The file cannot be read, or its first line does not name the columns.
    """
    with open_file(path, rules) as file:
        yield CsvFile(file, path, start, on_read)


def read_rows(path: Path) -> tuple[tuple[str, ...], Iterator[CsvRow]]:
    """Return the columns and rows of a file. The iterator raises DataError at the first row that is not CSV."""
    with open_csv(path) as file:
        columns = file.columns
    return columns, _rows(path)


def _rows(path: Path) -> Iterator[CsvRow]:
    with open_csv(path) as file:
        yield from starmap(CsvRow, file)
