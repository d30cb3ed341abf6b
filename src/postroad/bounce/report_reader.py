"""The process that unpacks and reads reports of receivers: ``python -m postroad.bounce.report_reader``.

It is not the one that reads mails, so that no report holds up a bounce.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from binascii import a2b_qp

import msgspec

from postroad.bounce.kept import MAX_REPORT_MAIL_BYTES, attached_reports
from postroad.bounce.mime import Part, read_message
from postroad.bounce.reading import REPORT_LIMITS, Reports, ReportsRequest
from postroad.confined import serve
from postroad.dns.reports.condense import condense
from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.read import MAX_ATTACHMENTS, domain_named, parse_report, printable_name
from postroad.dns.reports.tls import TlsReport
from postroad.errors import DataError

_decode = msgspec.msgpack.Decoder(ReportsRequest).decode
_encode = msgspec.msgpack.Encoder().encode


def read_reports(raw: bytes, domains: tuple[str, ...] | None) -> Reports:
    """Read the reports attached to a mail, in this process, and cut each down to what is kept of it.

    ``domains``: of senders; reports on others are refused. None: reports on every domain are read.
    """
    mail = read_message(raw, MAX_REPORT_MAIL_BYTES)
    subject = mail.headers.get("subject")
    dmarc: list[DmarcReport] = []
    tls: list[TlsReport] = []
    refused: list[str] = []
    attached = attached_reports(mail)
    if len(attached) > MAX_ATTACHMENTS:
        refused.append(f"{len(attached) - MAX_ATTACHMENTS} parts are not read: {MAX_ATTACHMENTS} are the most")
    for part in attached[:MAX_ATTACHMENTS]:
        try:
            read = parse_report(_octets(part), domain_named(part.file_name, subject))
        except DataError as error:
            refused.append(f"{printable_name(part.file_name)}: {error.message}"[:300])
            continue
        match condense(read, domains):
            case None:
                about = f"{read.domain[:100]}, which is not a domain of a sender" if read.domain else "no domain"
                refused.append(f"{printable_name(part.file_name)}: it is about {about}")
            case DmarcReport() as report:
                dmarc.append(report)
            case TlsReport() as report:
                tls.append(report)
    return Reports(tuple(dmarc), tuple(tls), tuple(refused))


def _octets(part: Part) -> bytes:
    """All of a part, of which `Part.octets` has the beginning."""
    match part.headers.get("content-transfer-encoding").lower().strip():
        case "base64":
            try:
                return b64decode(part.body + b"==")  # Some writers leave out the padding.
            except Base64Error:
                raise DataError("its base64 is broken") from None
        case "quoted-printable":
            return a2b_qp(part.body)
        case _:
            return part.body


def answer(request: bytes) -> bytes:
    """Read the reports of an encoded `ReportsRequest`, and return them encoded."""
    asked = _decode(request)
    return _encode(read_reports(asked.raw, asked.domains))


if __name__ == "__main__":
    serve(answer, REPORT_LIMITS)
