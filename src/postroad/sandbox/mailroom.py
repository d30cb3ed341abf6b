"""Keeps what was accepted: one file a message in a Maildir, and a line a recipient in the ledger.

Files are written straight from the event loop. A writer thread was measured: it costs the same processor
time, and a message would be announced before its file is there. Where only the count matters,
``keep = "ledger"`` costs less than half.
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
from postroad.sandbox.config import Keep
from postroad.sandbox.ledger import AcceptedMessage, Ledger

_MESSAGE_ID = re.compile(rb"^message-id:(?:[ \t]|\r\n[ \t])*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class StoredEnvelope(msgspec.Struct, frozen=True):
    """What is known of a message besides its content."""

    sender: str
    recipients: tuple[str, ...]
    helo: str
    ip: str
    protocol: str
    """``ESMTPSA`` and its like (RFC 3848)."""


class MessageStore:
    """The sandbox's memory on disk. Use as a context manager."""

    def __init__(self, directory: Path, keep: Keep, *, clock: Clock, hostname: str) -> None:
        self.maildir = directory / "Maildir"
        self.ledger = Ledger(directory / "accepted.jsonl")
        self._keep = keep
        self._clock = clock
        self._hostname = hostname
        # Names must differ from those of every other run on the same Maildir, so they take no part in the
        # sandbox's repeatable chance.
        self._run = secrets.token_hex(4)
        self._count = 0
        self._stamped = (-1, "")

    def __enter__(self) -> Self:
        try:
            self.maildir.parent.mkdir(parents=True, exist_ok=True)
            if self._keep is not Keep.LEDGER:
                for folder in ("tmp", "new", "cur"):
                    (self.maildir / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(
                f"The sandbox's folder cannot be made: {error.strerror}", where=str(error.filename)
            ) from error
        if self._keep is not Keep.MAILDIR:
            self.ledger.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keep is not Keep.MAILDIR:
            self.ledger.__exit__(kind, error, trace)

    def keep(self, envelope: StoredEnvelope, content: bytes) -> str:
        """Keep a message for all its recipients, and return the name it is kept under.

        Raises:
            OSError: it could not be kept, and nothing of it was.
        """
        self._count += 1
        at = self._clock.now()
        queue_id = f"{self._run}{self._count:X}"
        name = f"{int(at.timestamp())}.R{self._run}Q{self._count}.{self._hostname}"
        path = None
        if self._keep is not Keep.LEDGER:
            self._write(name, self._trace(envelope, queue_id, at), content)
            path = f"Maildir/new/{name}"
        if self._keep is not Keep.MAILDIR:
            message_id = message_id_of(content)
            try:
                self.ledger.append(
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
        """Return the lines in front of the content: RFC 5321 §4.4, and the recipients of the envelope."""
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
    """Return the value of the Message-ID header, or None. It may stand on a line of its own (folded)."""
    end = content.find(b"\r\n\r\n")
    found = _MESSAGE_ID.search(content, 0, end if end >= 0 else len(content))
    return found[1].strip().decode("utf-8", "replace") if found else None
