"""Runs the child process that parses mails: ``python -m postroad.bounce.mail_worker``."""

from __future__ import annotations

import re

import msgspec
from msgspec.structs import replace

from postroad.bounce.esp.events import parse_event, service_of
from postroad.bounce.mime import parse_message
from postroad.bounce.parse import parse_mail
from postroad.bounce.readers import LIMITS, ReadRequest
from postroad.bounce.report import Envelope, ParsedMail, storable
from postroad.bounce.tables import formats, signs
from postroad.bounce.truncation import attached_reports
from postroad.confined import serve

# A mail without any of these has no attached report, so most mails are parsed once only.
_REPORT_HINT = re.compile(rb"(?i)xml|json|zip|tlsrpt|\.gz")
_decode = msgspec.msgpack.Decoder(ReadRequest).decode
_encode = msgspec.msgpack.Encoder().encode


def parse_stored(raw: bytes, envelope: Envelope) -> ParsedMail:
    """Parse a mail, or an event that a webhook stored, in this process. A database can store the result."""
    service = service_of(envelope.source)
    if service is not None:
        return storable(parse_event(service, raw))
    report = storable(parse_mail(raw, envelope))
    if not _REPORT_HINT.search(raw):
        return report
    return replace(report, carries_reports=bool(attached_reports(parse_message(raw))))


def handle_request(request: bytes) -> bytes:
    """Parse the mail of an encoded `ReadRequest`, and return the encoded result."""
    decoded = _decode(request)
    return _encode(parse_stored(decoded.raw, decoded.envelope))


if __name__ == "__main__":
    signs(), formats()  # Load the tables before the first mail.
    serve(handle_request, LIMITS)
