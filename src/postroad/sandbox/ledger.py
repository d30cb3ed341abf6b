"""The ledger of what was accepted: one JSON object a line, written before the client hears of it.

A test counts here, by Message-ID, what the provider truly took, whatever became of the client. A line is in
the file once the write returns, so it outlives the end of either process; it is not synced to the disk.
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
    """One message that was taken for one recipient."""

    message_id: str | None
    """The Message-ID header's value with its angle brackets; None if there was no such header."""
    sender: str
    """The envelope sender; empty for a bounce."""
    recipient: str
    size: int
    """Octets of the content as received."""
    at: datetime
    path: str | None
    """Where the content is, relative to the ledger's folder; None if it was not kept."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AcceptedMessage)


class Ledger:
    """Appends to a ledger file. One writer a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UnavailableError(f"The ledger cannot be opened: {error.strerror}", where=str(self.path)) from error
        self._cut_torn_line()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def append(self, entries: Iterable[AcceptedMessage]) -> None:
        """Write all entries, or none.

        Raises:
            OSError: they could not be written.
        """
        lines = b"".join(_encoder.encode(entry) + b"\n" for entry in entries)
        written = os.write(self._descriptor, lines)
        if written < len(lines):
            # The disk filled up in the middle: take the piece back, it was promised to nobody.
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _cut_torn_line(self) -> None:
        """Remove the piece of a line that a killed sandbox left: its 250 was never sent."""
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
    """Read a ledger, also while it is being written: a last line without its end is left out.

    Raises:
        DataError: there is no such file, or a whole line of it is no entry; ``where`` says which.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"The ledger cannot be read: {error.strerror}", where=str(path)) from error
    entries: list[AcceptedMessage] = []
    *lines, _torn = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(_decoder.decode(line))
        except msgspec.DecodeError as error:
            raise DataError(f"This line is no ledger entry: {error}", where=f"{path}:{number}") from error
    return entries
