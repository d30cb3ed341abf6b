"""Reading a CSV of recipients: in a stream, strictly, from any row on.

What is wrong with the file as a whole is a DataError that names file, line and column; nothing of such a file is kept.
"""

from __future__ import annotations

import csv
import hashlib
import unicodedata
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader, BytesIO
from itertools import chain, starmap
from operator import length_hint
from pathlib import Path
from typing import BinaryIO, NamedTuple

from postroad.campaign.reading import ALLOW_IT, FileRefusedError, FileRules, open_regular
from postroad.errors import DataError

MAX_LINE_BYTES = 1 << 20
MAX_ROW_BYTES = 1 << 20
"""Of a row of several lines; it is found when a block of lines ends within it."""
_BLOCK_BYTES = 1 << 16
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


class Place(NamedTuple):
    """Where a row starts, or the file ends: a byte, counted from 0, and a line, counted from 1."""

    cursor: int
    line: int


class CsvRow(NamedTuple):
    """One row, and the line that it starts at."""

    line: int
    fields: list[str]


class _Text:
    """The text of a file from a place on, line by line; it is read, checked and decoded in blocks of whole lines."""

    def __init__(self, file: BinaryIO, path: Path, start: Place, seen: Callable[[bytes], None] | None) -> None:
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
            self._next = Place(self._block.cursor + len(raw), self._block.line + len(self._raw))
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
                remedy="Export the file again as UTF-8 (in a spreadsheet: “CSV UTF-8”).",
            ) from None

    def _where(self, raw: bytes, at: int) -> str:
        line = self._block.line + raw.count(b"\n", 0, at)
        return f"{self._path}, line {line}"


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
    if len(titles) > MAX_COLUMNS:
        raise DataError(f"{len(titles)} columns, and {MAX_COLUMNS} is the most", where=where)
    columns = [_identifier(title) for title in titles]
    columns = [ADDRESS if name in _ADDRESS_NAMES else TIME_ZONE if name in _ZONE_NAMES else name for name in columns]
    for number, name in enumerate(columns, start=1):
        if not name or not name.isidentifier():
            raise DataError(
                f"column {number} has no name that could be a merge field",
                where=where,
                remedy="Use letters, digits and underscores, a letter first.",
            )
        if name in columns[: number - 1]:
            first = columns.index(name) + 1
            raise DataError(
                f"columns {first} and {number} have one name", where=where, remedy="Rename or remove one of them."
            )
    if ADDRESS not in columns:
        raise DataError(
            f"there is no column `address` (or `email`) among the {len(columns)} of the first line",
            where=where,
            remedy="Name the column that holds the e-mail addresses `address`.",
        )
    return delimiter, tuple(columns)


class CsvFile:
    """An open CSV: its columns, and its rows from a place on, each with the line that it starts at.

    Blank lines are passed over. Iterating raises DataError at the first thing that is no CSV.
    """

    def __init__(self, file: BinaryIO, path: Path, start: Place | None, seen: Callable[[bytes], None] | None) -> None:
        mark = BOM_UTF8 if file.read(len(BOM_UTF8)) == BOM_UTF8 else b""
        head = next(iter(_Text(file, path, Place(len(mark), 1), None)), "")
        delimiter, self.columns = _header(path, head)
        raw = mark + head.encode()
        if start is None and seen is not None:
            seen(raw)
        self._path = path
        self._start = start or Place(len(raw), 2)
        self._text = _Text(file, path, self._start, seen)
        self._reader = csv.reader(self._text, delimiter=delimiter, strict=True)

    @property
    def place(self) -> Place:
        """Where the next row starts."""
        return Place(self._text.cursor, self._start.line + self._reader.line_num)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        width, first_line = len(self.columns), self._start.line
        line = first_line + self._reader.line_num
        try:
            for fields in self._reader:
                if len(fields) == width:
                    yield line, fields
                elif fields:
                    raise DataError(
                        f"{len(fields)} fields where the first line names {width} columns",
                        where=f"{self._path}, line {line}",
                        remedy="Quote a field that has the delimiter in it. Nothing of the file was imported.",
                    )
                line = self._text.row_line = first_line + self._reader.line_num
        except csv.Error as error:
            raise DataError(
                f"not CSV: {error}", where=f"{self._path}, line {line}", remedy="Is a quote in it never closed?"
            ) from None


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
    start: Place | None = None,
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


def check_csv(path: Path, progress: Callable[[int], None] | None = None, rules: FileRules | None = None) -> CsvFacts:
    """Read all of a file before anything of it is kept. Calls progress with bytes read. Raises DataError."""
    digest = hashlib.sha256()
    count = 0
    with open_csv(path, seen=digest.update, rules=rules) as file:
        for count, _ in enumerate(file, start=1):
            if count % 10_000 == 0 and progress is not None:
                progress(file.place.cursor)
        return CsvFacts(columns=file.columns, rows=count, size_bytes=file.place.cursor, sha256=digest.hexdigest())


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
