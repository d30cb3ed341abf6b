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
from postroad.dns.reports.read import MAX_ATTACHMENTS, read_report
from postroad.dns.reports.tls import TlsReport
from postroad.errors import DataError

_decode = msgspec.msgpack.Decoder(ReportsRequest).decode
_encode = msgspec.msgpack.Encoder().encode


def read_reports(raw: bytes, domains: tuple[str, ...]) -> Reports:
    """Read the reports attached to a mail, in this process, and cut each down to what is kept of it."""
    dmarc: list[DmarcReport] = []
    tls: list[TlsReport] = []
    refused: list[str] = []
    for part in attached_reports(read_message(raw, MAX_REPORT_MAIL_BYTES))[:MAX_ATTACHMENTS]:
        try:
            read = read_report(_octets(part))
        except DataError as error:
            refused.append(error.message[:200])
            continue
        match condense(read, domains):
            case None:
                refused.append(f"it is about {read.domain[:100]}, which is not a domain of a sender")
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
                return b64decode(part.body)
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
