"""Stores accepted messages: one file per message in a Maildir, and one line per recipient in the log.

Files are written on the event loop. A writer thread was measured: it takes the same processor time, and the log entry
would precede the file. If only the count matters, ``keep = "ledger"`` costs less than half.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from postroad.clock import Clock
from postroad.errors import UnavailableError
from postroad.sandbox.accepted_log import AcceptedLog, AcceptedMessage
from postroad.sandbox.config import StorageMode

_MESSAGE_ID = re.compile(rb"^message-id:(?:[ \t]|\r\n[ \t])*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class StoredEnvelope(msgspec.Struct, frozen=True):
    """The envelope of a message, and how it was received."""

    sender: str
    recipients: tuple[str, ...]
    helo: str
    ip: str
    protocol: str
    """The protocol, such as ``ESMTPSA`` (RFC 3848)."""


class MessageStore:
    """Writes accepted messages to disk. Use it as a context manager."""

    def __init__(self, directory: Path, mode: StorageMode, *, clock: Clock, hostname: str) -> None:
        self.maildir = directory / "Maildir"
        self.log = AcceptedLog(directory / "accepted.jsonl")
        self._mode = mode
        self._clock = clock
        self._hostname = hostname
        # File names must differ between runs on the same Maildir, so they do not use the reproducible random numbers.
        self._run = secrets.token_hex(4)
        self._count = 0
        self._stamped = (-1, "")

    def __enter__(self) -> Self:
        try:
            self.maildir.parent.mkdir(parents=True, exist_ok=True)
            if self._mode is not StorageMode.LEDGER:
                for folder in ("tmp", "new", "cur"):
                    (self.maildir / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(
                f"The sandbox's folder cannot be created: {error.strerror}", where=str(error.filename)
            ) from error
        if self._mode is not StorageMode.MAILDIR:
            self.log.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mode is not StorageMode.MAILDIR:
            self.log.__exit__(kind, error, trace)

    def store(self, envelope: StoredEnvelope, content: bytes) -> str:
        """Store a message for all its recipients.

        Args:
            envelope: The envelope.
            content: The content, without dot stuffing.

        Returns:
            The queue id.

        Raises:
            OSError: The message could not be stored, and no part of it is.
        """
        self._count += 1
        at = self._clock.now()
        queue_id = f"{self._run}{self._count:X}"
        name = f"{int(at.timestamp())}.R{self._run}Q{self._count}.{self._hostname}"
        path = None
        if self._mode is not StorageMode.LEDGER:
            self._write(name, self._trace(envelope, queue_id, at), content)
            path = f"Maildir/new/{name}"
        if self._mode is not StorageMode.MAILDIR:
            message_id = message_id_of(content)
            try:
                self.log.append(
                    AcceptedMessage(
                        message_id=message_id,
                        sender=envelope.sender,
                        recipient=recipient,
                        size=len(content),
                        at=at,
                        path=path,
                    )
                    for recipient in envelope.recipients
                )
            except OSError:
                if path:
                    (self.maildir / "new" / name).unlink()
                raise
        return queue_id

    def _write(self, name: str, trace: bytes, content: bytes) -> None:
        temporary = f"{self.maildir}/tmp/{name}"  # noqa: S108 - the Maildir's own
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            try:
                whole = len(trace) + len(content)
                if os.writev(descriptor, (trace, content)) < whole:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), temporary)
            finally:
                os.close(descriptor)
            os.rename(temporary, f"{self.maildir}/new/{name}")  # noqa: PTH104 - Path costs more than the call
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise

    def _trace(self, envelope: StoredEnvelope, queue_id: str, at: datetime) -> bytes:
        """Return the trace fields before the content (RFC 5321 §4.4), and the recipients of the envelope."""
        second = int(at.timestamp())
        if self._stamped[0] != second:
            self._stamped = (second, format_datetime(at.astimezone(UTC)))
        recipients = "".join(f"X-Sandbox-Recipient: {recipient}\r\n" for recipient in envelope.recipients)
        return (
            f"Return-Path: <{envelope.sender}>\r\n{recipients}"
            f"Received: from {envelope.helo} ([{envelope.ip}])\r\n"
            f"\tby {self._hostname} with {envelope.protocol} id {queue_id};\r\n"
            f"\t{self._stamped[1]}\r\n"
        ).encode()


def message_id_of(content: bytes) -> str | None:
    """Return the value of the Message-ID field, which may be folded, or None."""
    end = content.find(b"\r\n\r\n")
    match = _MESSAGE_ID.search(content, 0, end if end >= 0 else len(content))
    return match[1].strip().decode("utf-8", "replace") if match else None
