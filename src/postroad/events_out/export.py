"""Writes published events to a file, in the order of the stream: NDJSON, or Parquet for a warehouse.

A page is read, written and forgotten, so memory does not grow with the file. The file appears under its name when it is
complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

import sqlalchemy as sa

from postroad.errors import DataError, UsageError
from postroad.event_types import EventType
from postroad.events_out.body import body_of, encode_body
from postroad.store.event_stream import PublishedEvent, published_pages

if TYPE_CHECKING:
    from pyarrow import Schema

ROWS_OF_A_GROUP = 10_000
"""Rows of a row group of Parquet: the largest number of rows in memory."""


class EventFormat(StrEnum):
    """Format of a file of events."""

    NDJSON = "ndjson"
    PARQUET = "parquet"


class Exported(NamedTuple):
    """Result of an export. ``cursor``: where the next one continues."""

    events: int
    cursor: int


class ExportedSpan(NamedTuple):
    """The events to export. ``after``, ``end``: ids of the stream. ``since``, ``until``: None: no limit."""

    after: int
    end: int
    since: datetime | None = None
    until: datetime | None = None
    types: frozenset[EventType] = frozenset(EventType)

    def contains(self, event: PublishedEvent) -> bool:
        """Return whether an event of the stream is exported."""
        return (
            event.type in self.types
            and (self.since is None or event.at >= self.since)
            and (self.until is None or event.at < self.until)
        )


class EventWriter(Protocol):
    """Writes events to an open file."""

    def write(self, events: Sequence[PublishedEvent]) -> None:
        """Append events."""
        ...

    def close(self) -> None:
        """Write the end of the file, which stays open."""
        ...


class NdjsonWriter:
    """One JSON object in each line, as the body of a webhook."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output

    def write(self, events: Sequence[PublishedEvent]) -> None:
        """Append events."""
        self._output.writelines(encode_body(body_of(event)) + b"\n" for event in events)

    def close(self) -> None:
        """Write nothing more: the format has no end."""


class ParquetWriter:
    """One row for each event, compressed with Zstandard."""

    def __init__(self, output: IO[bytes]) -> None:
        """Begin a file.

        Args:
            output: A binary file.

        Raises:
            UsageError: The package pyarrow is not installed.
        """
        try:
            import pyarrow as pa  # noqa: PLC0415  (an optional package of 50 MB)
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ImportError:
            raise UsageError(
                "Parquet needs the package pyarrow, which is not installed",
                remedy="Install it with `pip install 'postroad[parquet]'`, or use --format ndjson.",
            ) from None
        self._schema: Schema = pa.schema(
            [
                *((name, pa.string()) for name in ("id", "type")),
                ("at", pa.timestamp("us", "UTC")),
                ("touch", pa.int64()),
                *((name, pa.string()) for name in ("campaign", "step", "sender", "recipient", "provider")),
                *((name, pa.int32()) for name in ("attempt", "reply_code")),
                *((name, pa.string()) for name in ("enhanced_code", "reply", "cause", "blame")),
                ("next_at", pa.timestamp("us", "UTC")),
            ]
        )
        self._table = pa.Table
        self._rows: list[dict[str, object]] = []
        self._writer = pq.ParquetWriter(output, self._schema, compression="zstd")

    def write(self, events: Sequence[PublishedEvent]) -> None:
        """Append events."""
        for event in events:
            values = event._asdict()
            self._rows.append(values | {"id": event.message_id, "type": str(event.type)})
        if len(self._rows) >= ROWS_OF_A_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last group and the index."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            columns = {name: [row[name] for row in self._rows] for name in self._schema.names}
            self._writer.write_table(self._table.from_pydict(columns, schema=self._schema))
            self._rows.clear()


WRITERS: dict[EventFormat, Callable[[IO[bytes]], EventWriter]] = {
    EventFormat.NDJSON: NdjsonWriter,
    EventFormat.PARQUET: ParquetWriter,
}


def export_events(
    engine: sa.Engine,
    span: ExportedSpan,
    output: IO[bytes],
    kind: EventFormat,
    report: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write the events of a span to an open file.

    Args:
        engine: The database.
        span: The events.
        output: A binary file.
        kind: Its format.
        report: Called after each page with the rows of the stream that were read, and all.

    Returns:
        The number of events, and the cursor.

    Raises:
        UsageError: The format needs a package that is not installed.
        UnavailableError: The database does not answer.
    """
    writer = WRITERS[kind](output)
    count = 0
    for last, events in published_pages(engine, span.after, span.end):
        wanted = [event for event in events if span.contains(event)]
        writer.write(wanted)
        count += len(wanted)
        if report is not None:
            report(last - span.after, span.end - span.after)
    writer.close()
    return Exported(count, max(span.end, span.after))


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces `path` when the block ends, and is deleted if it raises.

    Only its owner can read it, because events contain addresses.

    Args:
        path: The file.

    Yields:
        The open file.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False) as file:
            part = Path(file.name)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise DataError(f"the file cannot be written: {error.strerror}", where=str(path)) from None
