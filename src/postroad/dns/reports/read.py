"""A report of either kind, as it came: packed or not."""

from __future__ import annotations

import re
from email import policy
from email.message import Message
from email.parser import BytesParser

from postroad.dns.reports.dmarc import DmarcReport, read_dmarc_report
from postroad.dns.reports.tls import TlsReport, read_tls_report
from postroad.dns.reports.unpack import MAX_PACKED_BYTES, unpack
from postroad.errors import DataError

_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]*:|From ")
_NAMES = (".xml", ".xml.gz", ".json", ".json.gz", ".zip", ".gz")
_MEDIA_TYPES = (
    *("application/xml", "text/xml", "application/gzip", "application/x-gzip", "application/zip"),
    *("application/x-zip-compressed", "application/tlsrpt+json", "application/tlsrpt+gzip"),
)


MAX_ATTACHMENTS = 20


def reports_of(data: bytes) -> list[DmarcReport | TlsReport]:
    """Read the reports of a file: itself, or those attached to it where it is a mail. Raises DataError."""
    if not _HEADER.match(data[:1_000]):
        return [read_report(data)]
    if len(data) > MAX_PACKED_BYTES * 2:
        raise DataError(f"it is a mail of {len(data):,} bytes; at most {MAX_PACKED_BYTES * 2:,} are read")
    try:
        # The policy that reads no field until it is asked for.
        message = BytesParser(policy=policy.compat32).parsebytes(data)
        attached = [
            part
            for part in message.walk()
            if not part.is_multipart() and may_be_report(part.get_content_type(), part.get_filename() or "")
        ]
    except RecursionError:
        raise DataError("it is a mail whose parts are nested too deeply") from None
    if not attached:
        raise DataError("it is a mail without a report: neither XML nor JSON, in gzip or zip or bare")
    if len(attached) > MAX_ATTACHMENTS:
        raise DataError(f"it is a mail with {len(attached)} reports; at most {MAX_ATTACHMENTS} are read")
    return [read_report(_octets(part)) for part in attached]


def may_be_report(media_type: str, file_name: str) -> bool:
    """Whether a part of a mail is a report by its media type or its name (RFC 9990, RFC 8460 §5.3)."""
    return media_type in _MEDIA_TYPES or file_name.lower().endswith(_NAMES)


def _octets(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def read_report(data: bytes) -> DmarcReport | TlsReport:
    """Read a report: XML or JSON, bare, in gzip or in zip. Raises DataError with what is wrong."""
    text = unpack(data).removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        return read_tls_report(text)
    if text.startswith((b"<", b"\xff\xfe", b"\xfe\xff")):
        return read_dmarc_report(text)
    raise DataError("it is neither XML (DMARC) nor JSON (TLS-RPT), bare, in gzip or in zip")
