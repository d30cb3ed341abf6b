"""The log of accepted messages: one JSON object per line, written before the client gets the reply.

Tests count by Message-ID which messages the provider accepted, whatever happened to the client. A line is in the file
when the write returns, so it survives the end of either process. The file is not synced to disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from postroad.errors import DataError, UnavailableError


class AcceptedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message that was accepted for one recipient."""

    message_id: str | None
    """The value of the Message-ID field with its angle brackets. None if there is no such field."""
    sender: str
    """The envelope sender; empty for a bounce."""
    recipient: str
    size: int
    """Octets of the content as received."""
    at: datetime
    path: str | None
    """The file of the content, relative to the log's folder. None if it was not stored."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AcceptedMessage)


class AcceptedLog:
    """Appends to a log file. A file must have one writer only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UnavailableError(
                f"The log of accepted messages cannot be opened: {error.strerror}", where=str(self.path)
            ) from error
        self._cut_torn_line()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def append(self, entries: Iterable[AcceptedMessage]) -> None:
        """Write all entries, or none of them.

        Args:
            entries: The entries.

        Raises:
            OSError: They could not be written.
        """
        lines = b"".join(_encoder.encode(entry) + b"\n" for entry in entries)
        written = os.write(self._descriptor, lines)
        if written < len(lines):
            # The disk is full: remove the partial line, for which no reply was sent.
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _cut_torn_line(self) -> None:
        """Remove a partial last line, which a killed sandbox left. Its 250 was never sent."""
        size = os.fstat(self._descriptor).st_size
        end = size
        while end > 0:
            start = max(0, end - 65_536)
            newline = os.pread(self._descriptor, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._descriptor, end)


def accepted(path: Path) -> list[AcceptedMessage]:
    """Read a log, which may be being written: a partial last line is ignored.

    Args:
        path: The file.

    Returns:
        The entries, in order.

    Raises:
        DataError: The file cannot be read, or a complete line is invalid. ``where`` names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"The log of accepted messages cannot be read: {error.strerror}", where=str(path)) from error
    entries: list[AcceptedMessage] = []
    *lines, _torn = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(_decoder.decode(line))
        except msgspec.DecodeError as error:
            raise DataError(f"The line is not a valid entry: {error}", where=f"{path}:{number}") from error
    return entries
