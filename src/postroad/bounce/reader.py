"""The process that reads mails and does nothing else: ``python -m postroad.bounce.reader``."""

from __future__ import annotations

import re

import msgspec
from msgspec.structs import replace

from postroad.bounce.kept import attached_reports
from postroad.bounce.mime import read_message
from postroad.bounce.read import read_mail
from postroad.bounce.reading import LIMITS, ReadRequest
from postroad.bounce.report import Envelope, ParsedMail, storable
from postroad.bounce.services.read import read_event, service_of
from postroad.bounce.tables import formats, signs
from postroad.confined import serve

# What a mail without an attached report does not have: most need no second look.
_HINT = re.compile(rb"(?i)xml|json|zip|tlsrpt|\.gz")
_decode = msgspec.msgpack.Decoder(ReadRequest).decode
_encode = msgspec.msgpack.Encoder().encode


def read_kept(raw: bytes, envelope: Envelope) -> ParsedMail:
    """Read a mail, or the event that a webhook kept, in this process. The report holds what a database can hold."""
    service = service_of(envelope.source)
    if service is not None:
        return storable(read_event(service, raw))
    report = storable(read_mail(raw, envelope))
    return replace(report, carries_reports=bool(attached_reports(read_message(raw)))) if _HINT.search(raw) else report


def answer(request: bytes) -> bytes:
    """Read the mail of an encoded `ReadRequest`, and return the encoded report."""
    asked = _decode(request)
    return _encode(read_kept(asked.raw, asked.envelope))


if __name__ == "__main__":
    signs(), formats()
    serve(answer, LIMITS)
