"""Reads reports of both kinds, compressed or not, from files and mails."""

from __future__ import annotations

import re
from email import policy
from email.message import Message
from email.parser import BytesParser

from postroad.dns.reports.dmarc import DmarcReport, parse_dmarc_report
from postroad.dns.reports.tls import TlsReport, parse_tls_report
from postroad.dns.reports.unpack import MAX_PACKED_BYTES, unpack
from postroad.errors import DataError

_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]*:|From ")
_SUBJECT = re.compile(r"(?i)\breport[ -]domain:\s{0,20}([A-Za-z0-9._-]{1,253})")
_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){1,126}")
_NAMES = (".xml", ".xml.gz", ".json", ".json.gz", ".zip", ".gz")
_MEDIA_TYPES = (
    *("application/xml", "text/xml", "application/gzip", "application/x-gzip", "application/zip"),
    *("application/x-zip-compressed", "application/tlsrpt+json", "application/tlsrpt+gzip"),
)


MAX_ATTACHMENTS = 20


def parse_report_file(
    data: bytes, file_name: str = "", refused: list[str] | None = None
) -> list[DmarcReport | TlsReport]:
    """Parse the reports in a file, which is a report itself or a mail with attached reports.

    Args:
        data: The content of the file.
        file_name: The name of the file, which may contain the domain of the policy.
        refused: A list to which the errors of invalid attachments are added.

    Returns:
        The valid reports.

    Raises:
        DataError: No report can be parsed.
    """
    if not _HEADER.match(data[:1_000]):
        return [parse_report(data, domain_from_name(file_name))]
    if len(data) > MAX_PACKED_BYTES * 2:
        raise DataError(f"it is a mail of {len(data):,} bytes; at most {MAX_PACKED_BYTES * 2:,} are read")
    try:
        # compat32 parses a header field only when it is accessed.
        message = BytesParser(policy=policy.compat32).parsebytes(data)
        attached = [
            part
            for part in message.walk()
            if not part.is_multipart() and may_be_report(part.get_content_type(), part.get_filename() or "")
        ]
    except RecursionError:
        raise DataError("it is a mail whose parts are nested too deeply") from None
    if not attached:
        raise DataError("it is a mail without a report: without XML or JSON, in gzip, in zip or uncompressed")
    if len(attached) > MAX_ATTACHMENTS:
        raise DataError(f"it is a mail with {len(attached)} reports; at most {MAX_ATTACHMENTS} are read")
    reports: list[DmarcReport | TlsReport] = []
    errors: list[str] = []
    for part in attached:
        name = part.get_filename() or ""
        try:
            reports.append(parse_report(_octets(part), domain_from_name(name, str(message.get("subject", "")))))
        except DataError as error:
            errors.append(f"{printable_name(name)}: {error.message}")
    if not reports:
        raise DataError("; ".join(errors)[:1_000])
    if refused is not None:
        refused += errors
    return reports


def domain_from_name(file_name: str, subject: str = "") -> str:
    """Return the policy domain in a file's name or a mail's subject (RFC 9990, RFC 8460 §5.3), or ""."""
    parts = file_name.rpartition("/")[2].split("!")
    domain = parts[1] if len(parts) >= 4 else ""
    if not domain and (match := _SUBJECT.search(subject[:1_000])):
        domain = match[1]
    return domain.lower() if _DOMAIN.fullmatch(domain) else ""


def printable_name(file_name: str) -> str:
    """Return the name of an attached file, safe to show."""
    return "".join(c if c.isprintable() else "\ufffd" for c in file_name[:60]) or "a part without a name"


def may_be_report(media_type: str, file_name: str) -> bool:
    """Return whether a part may be a report, by its media type or its name (RFC 9990, RFC 8460 §5.3)."""
    return media_type in _MEDIA_TYPES or file_name.lower().endswith(_NAMES)


def _octets(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def parse_report(data: bytes, domain: str = "") -> DmarcReport | TlsReport:
    """Parse a report in XML or JSON, uncompressed, in gzip or in zip.

    Args:
        data: The report.
        domain: The policy domain, for a report without one.

    Returns:
        The report.

    Raises:
        DataError: It is not a valid report.
    """
    text = unpack(data).removeprefix(b"\xef\xbb\xbf").lstrip()
    begin = text[:100].translate(None, b"\x00\xff\xfe").lstrip()  # also in UTF-16
    if begin.startswith((b"{", b"[")):
        return parse_tls_report(text, domain)
    if begin.startswith(b"<"):
        return parse_dmarc_report(text, domain)
    raise DataError("it is neither XML (DMARC) nor JSON (TLS-RPT), uncompressed, in gzip or in zip")
