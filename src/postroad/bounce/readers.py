"""Parses mails in a child process with limits, so that no mail blocks the worker: see docs/adr/0030."""

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
"""Limits for one mail. The largest mail takes a tenth of a second."""

REPORT_LIMITS = ProcessLimits(cpu_s=30.0, wall_s=120.0, memory_mib=768)
"""Limits for one mail with reports: 20 attachments of up to 20 MiB each when unpacked."""

ReadMail = Callable[[bytes, Envelope], ParsedMail]
"""Parses a mail or a stored event. Raises UnavailableError only. A mail that cannot be parsed is `UNREADABLE`."""


class AttachedReports(msgspec.Struct, frozen=True, array_like=True):
    """Reports attached to one mail. ``refused``: for each report that is not stored, the reason."""

    dmarc: tuple[DmarcReport, ...] = ()
    tls: tuple[TlsReport, ...] = ()
    refused: tuple[str, ...] = ()


class ReportsRequest(msgspec.Struct, frozen=True, array_like=True):
    """A mail, and the domains whose reports are stored. None: reports on every domain."""

    raw: bytes
    domains: tuple[str, ...] | None


ReadReports = Callable[[bytes, tuple[str, ...] | None], AttachedReports]
"""Parses the reports attached to a mail. Raises UnavailableError only."""


class ReadRequest(msgspec.Struct, frozen=True, array_like=True):
    """One stored mail or event, and its envelope."""

    raw: bytes
    envelope: Envelope


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ParsedMail).decode
_decode_reports = msgspec.msgpack.Decoder(AttachedReports).decode


class _Reader:
    """Owns the child process that answers the requests. Use it as a context manager."""

    def __init__(self, module: str, limits: ProcessLimits) -> None:
        self._confined = Confined(module, limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._confined.close()


class ReportReader(_Reader):
    """Parses the reports attached to mails in a child process."""

    def __init__(self, module: str = "postroad.bounce.report_worker", limits: ProcessLimits = REPORT_LIMITS) -> None:
        super().__init__(module, limits)

    def __call__(self, raw: bytes, domains: tuple[str, ...] | None) -> AttachedReports:
        """Parse the reports of a mail. Blocking. Raises UnavailableError if the child cannot be started."""
        try:
            return _decode_reports(self._confined.ask(_encode(ReportsRequest(raw, domains))))
        except RequestRefusedError as error:
            return AttachedReports(refused=(error.message,))
        except msgspec.DecodeError:
            return AttachedReports(refused=("the answer of its parser cannot be read",))


class MailReader(_Reader):
    """Parses mails in a child process."""

    def __init__(self, module: str = "postroad.bounce.mail_worker", limits: ProcessLimits = LIMITS) -> None:
        super().__init__(module, limits)

    def __call__(self, raw: bytes, envelope: Envelope) -> ParsedMail:
        """Parse a mail. Blocking. Raises UnavailableError if the child cannot be started."""
        try:
            return _decode(self._confined.ask(_encode(ReadRequest(raw, envelope))))
        except RequestRefusedError as error:
            return unreadable(error.message, envelope)
        except msgspec.DecodeError:
            return unreadable("the answer of its parser cannot be read", envelope)


def unreadable(cause: str, envelope: Envelope) -> ParsedMail:
    """Return the result for a mail that cannot be parsed: its envelope only, so that an unsubscribe request counts."""
    addressed_to = (envelope.recipient,) if envelope.recipient else ()
    return ParsedMail(kind=MailKind.UNREADABLE, format=f"unreadable: {cause}"[:100], addressed_to=addressed_to)
