"""Runs the child process that unpacks and parses attached reports: ``python -m postroad.bounce.report_worker``.

It is separate from the process that parses mails, so that no report delays a bounce.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from binascii import a2b_qp

import msgspec

from postroad.bounce.mime import Part, parse_message
from postroad.bounce.readers import REPORT_LIMITS, AttachedReports, ReportsRequest
from postroad.bounce.truncation import MAX_REPORT_MAIL_BYTES, attached_reports
from postroad.confined import serve
from postroad.dns.reports.condense import condense
from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.read import MAX_ATTACHMENTS, domain_from_name, parse_report, printable_name
from postroad.dns.reports.tls import TlsReport
from postroad.errors import DataError

_decode = msgspec.msgpack.Decoder(ReportsRequest).decode
_encode = msgspec.msgpack.Encoder().encode


def parse_reports(raw: bytes, domains: tuple[str, ...] | None) -> AttachedReports:
    """Parse the reports attached to a mail, in this process, and reduce each to what is stored.

    Args:
        raw: The mail.
        domains: Domains of senders; a report on another domain is refused. None: reports on every domain are parsed.

    Returns:
        The parsed reports, and the reason for each refused one.
    """
    mail = parse_message(raw, MAX_REPORT_MAIL_BYTES)
    subject = mail.headers.get("subject")
    dmarc: list[DmarcReport] = []
    tls: list[TlsReport] = []
    refused: list[str] = []
    attached = attached_reports(mail)
    if len(attached) > MAX_ATTACHMENTS:
        refused.append(f"{len(attached) - MAX_ATTACHMENTS} parts are not read: {MAX_ATTACHMENTS} are the most")
    for part in attached[:MAX_ATTACHMENTS]:
        name = printable_name(part.file_name)
        try:
            parsed = parse_report(_decoded_body(part), domain_from_name(part.file_name, subject))
        except DataError as error:
            refused.append(f"{name}: {error.message}"[:300])
            continue
        match condense(parsed, domains):
            case None:
                about = f"{parsed.domain[:100]}, which is not a domain of a sender" if parsed.domain else "no domain"
                refused.append(f"{name}: it is about {about}")
            case DmarcReport() as report:
                dmarc.append(report)
            case TlsReport() as report:
                tls.append(report)
    return AttachedReports(tuple(dmarc), tuple(tls), tuple(refused))


def _decoded_body(part: Part) -> bytes:
    """Return the whole decoded body of a part, of which `Part.octets` has the beginning only."""
    match part.headers.get("content-transfer-encoding").lower().strip():
        case "base64":
            try:
                return b64decode(part.body + b"==")  # Some writers omit the padding.
            except Base64Error:
                raise DataError("its base64 is broken") from None
        case "quoted-printable":
            return a2b_qp(part.body)
        case _:
            return part.body


def handle_request(request: bytes) -> bytes:
    """Parse the reports of an encoded `ReportsRequest`, and return them encoded."""
    decoded = _decode(request)
    return _encode(parse_reports(decoded.raw, decoded.domains))


if __name__ == "__main__":
    serve(handle_request, REPORT_LIMITS)
