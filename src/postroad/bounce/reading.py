"""Has mails read in a child process with limits, so that no mail stops the worker: see docs/adr/0030."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

from postroad.bounce.report import Envelope, MailKind, ParsedMail
from postroad.confined import Confined, ProcessLimits, RequestRefusedError
from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.tls import TlsReport

log = logging.getLogger(__name__)

LIMITS = ProcessLimits(cpu_s=2.0, wall_s=20.0, memory_mib=512)
"""Of one mail. The largest mail that is read takes a tenth of a second."""

REPORT_LIMITS = ProcessLimits(cpu_s=30.0, wall_s=120.0, memory_mib=768)
"""Of one mail with reports: 20 attachments, of which each may have 20 MiB unpacked."""

Read = Callable[[bytes, Envelope], ParsedMail]
"""Reads a mail or a kept event. It raises nothing but UnavailableError; what cannot be read is `unreadable`."""


class Reports(msgspec.Struct, frozen=True, array_like=True):
    """Reports attached to one mail. ``refused``: why others are not kept."""

    dmarc: tuple[DmarcReport, ...] = ()
    tls: tuple[TlsReport, ...] = ()
    refused: tuple[str, ...] = ()


class ReportsRequest(msgspec.Struct, frozen=True, array_like=True):
    """A mail, and the domains whose reports are kept. None: those of every domain."""

    raw: bytes
    domains: tuple[str, ...] | None


ReadReports = Callable[[bytes, tuple[str, ...] | None], Reports]
"""Reads the reports attached to a mail. It raises nothing but UnavailableError."""


class ReadRequest(msgspec.Struct, frozen=True, array_like=True):
    """One mail or event, as it is kept."""

    raw: bytes
    envelope: Envelope


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ParsedMail).decode


_decode_reports = msgspec.msgpack.Decoder(Reports).decode


class _Reader:
    """Has its requests answered by a child process. Use it as a context manager."""

    def __init__(self, module: str, limits: ProcessLimits) -> None:
        self._confined = Confined(module, limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._confined.close()


class ReportReader(_Reader):
    """Reads the reports attached to mails in a child process of its own."""

    def __init__(self, module: str = "postroad.bounce.report_reader", limits: ProcessLimits = REPORT_LIMITS) -> None:
        super().__init__(module, limits)

    def __call__(self, raw: bytes, domains: tuple[str, ...] | None) -> Reports:
        """Read the reports of a mail. Blocking. Raises UnavailableError if the child cannot be started."""
        try:
            return _decode_reports(self._confined.ask(_encode(ReportsRequest(raw, domains))))
        except RequestRefusedError as error:
            return Reports(refused=(error.message,))
        except msgspec.DecodeError:
            return Reports(refused=("the answer of its parser cannot be read",))


class MailReader(_Reader):
    """Reads mails in a child process of its own."""

    def __init__(self, module: str = "postroad.bounce.reader", limits: ProcessLimits = LIMITS) -> None:
        super().__init__(module, limits)

    def __call__(self, raw: bytes, envelope: Envelope) -> ParsedMail:
        """Read a mail. Blocking. Raises UnavailableError if the child cannot be started."""
        try:
            return _decode(self._confined.ask(_encode(ReadRequest(raw, envelope))))
        except RequestRefusedError as error:
            return unreadable(error.message, envelope)
        except msgspec.DecodeError:
            return unreadable("the answer of its parser cannot be read", envelope)


def unreadable(cause: str, envelope: Envelope) -> ParsedMail:
    """Return the report of a mail that cannot be read: of its envelope alone, so that a wish to unsubscribe counts."""
    to = (envelope.recipient,) if envelope.recipient else ()
    return ParsedMail(kind=MailKind.UNREADABLE, format=f"unreadable: {cause}"[:100], addressed_to=to)
