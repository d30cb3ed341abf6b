"""A report of either kind, as it came: packed or not."""

from __future__ import annotations

from postroad.dns.reports.dmarc import DmarcReport, read_dmarc_report
from postroad.dns.reports.tls import TlsReport, read_tls_report
from postroad.dns.reports.unpack import unpack
from postroad.errors import DataError


def read_report(data: bytes) -> DmarcReport | TlsReport:
    """Read a report: XML or JSON, bare, in gzip or in zip. Raises DataError with what is wrong."""
    text = unpack(data).removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        return read_tls_report(text)
    if text.startswith((b"<", b"\xff\xfe", b"\xfe\xff")):
        return read_dmarc_report(text)
    raise DataError("it is neither XML (DMARC) nor JSON (TLS-RPT), bare, in gzip or in zip")
