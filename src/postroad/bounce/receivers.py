"""DMARC and TLS reports among what came back: where they are asked for at an address that bounces go to as well."""

from __future__ import annotations

import logging
from base64 import b64decode
from binascii import Error as Base64Error
from binascii import a2b_qp
from collections.abc import Iterator

import sqlalchemy as sa

from postroad.bounce.kept import MAX_REPORT_MAIL_BYTES, attached_reports
from postroad.bounce.mime import Part, read_message
from postroad.dns.reports.dmarc import DmarcReport
from postroad.dns.reports.keep import keep_report
from postroad.dns.reports.read import MAX_ATTACHMENTS, read_report
from postroad.dns.reports.tls import TlsReport
from postroad.errors import DataError
from postroad.store.bounce import raw_of
from postroad.store.engine import read, write

log = logging.getLogger(__name__)


def keep_reports(engine: sa.Engine, digest: str) -> int:
    """Keep the reports in a mail that came back. One that is known changes nothing. Returns how many are new.

    Raises UnavailableError; the next try keeps what is missing.
    """
    with read(engine) as connection:
        raw = raw_of(connection, digest)
    new = 0
    for report in reports_in(raw or b"", digest):
        with write(engine) as connection:
            kept = keep_report(connection, report)
        new += kept
        if kept:
            log.info("mail %s: %s reports on %s", digest[:16], report.organisation, report.domain)
    return new


def reports_in(raw: bytes, digest: str) -> Iterator[DmarcReport | TlsReport]:
    """Yield the reports attached to a mail. What looks like one and is none, or an attack, is logged."""
    if len(raw) > MAX_REPORT_MAIL_BYTES:
        log.warning("mail %s: of its %d bytes no report is read", digest[:16], len(raw))
        return
    for part in attached_reports(read_message(raw, MAX_REPORT_MAIL_BYTES))[:MAX_ATTACHMENTS]:
        try:
            yield read_report(_octets(part))
        except DataError as error:
            log.warning("mail %s: no report of a receiver: %s", digest[:16], error.message)


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
