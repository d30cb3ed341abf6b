"""Has mails read in a child process with limits, so that no mail stops the worker: see docs/adr/0030."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

import msgspec

from postroad.bounce.report import Envelope, Kind, Report
from postroad.confined import Confined, Limits, RefusedError

log = logging.getLogger(__name__)

LIMITS = Limits(cpu_s=2.0, wall_s=20.0, memory_mib=512)
"""Of one mail. The largest mail that is read takes a tenth of a second."""

Read = Callable[[bytes, Envelope], Report]
"""Reads a mail or a kept event. It raises nothing but UnavailableError; what cannot be read is `unreadable`."""


class ReadRequest(msgspec.Struct, frozen=True, array_like=True):
    """One mail or event, as it is kept."""

    raw: bytes
    envelope: Envelope


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Report).decode


class MailReader:
    """Reads mails in a child process of its own. Use it as a context manager."""

    def __init__(self, module: str = "postroad.bounce.reader", limits: Limits = LIMITS) -> None:
        self._confined = Confined(module, limits)

    def __enter__(self) -> MailReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._confined.close()

    def __call__(self, raw: bytes, envelope: Envelope) -> Report:
        """Read a mail. Blocking. Raises UnavailableError if the child cannot be started."""
        try:
            return _decode(self._confined.ask(_encode(ReadRequest(raw, envelope))))
        except RefusedError as error:
            return unreadable(error.message, envelope)
        except msgspec.DecodeError:
            return unreadable("the answer of its parser cannot be read", envelope)


def unreadable(cause: str, envelope: Envelope) -> Report:
    """Return the report of a mail that cannot be read: of its envelope alone, so that a wish to unsubscribe counts."""
    to = (envelope.recipient,) if envelope.recipient else ()
    return Report(kind=Kind.UNREADABLE, format=f"unreadable: {cause}"[:100], addressed_to=to)
