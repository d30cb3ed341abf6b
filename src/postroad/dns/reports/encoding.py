"""Converts reports to UTF-8: from the declared encoding, from an undeclared one, or with invalid octets."""

from __future__ import annotations

import codecs
import re

from postroad.dns.reports.problems import Problems

_BOMS = (
    *((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
)
_WIDE = ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"), (b"{\0", "utf-16-le"), (b"\0{", "utf-16-be"))
_DECLARED = re.compile(rb"""<\?xml\s[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")
_READABLE = re.compile(r"(iso8859|cp125|koi8|gb|big5|shift|euc|iso2022|utf-?8|ascii)", re.IGNORECASE)
"""Python's names of text encodings. A declaration cannot select any other codec."""
_FORBIDDEN = bytes(octet for octet in range(32) if octet not in b"\t\n\r")
MAX_AMPERSANDS = 10_000
"""Maximum number of ampersands in a report that is repaired. With more, the XML counts as broken."""
_STRAY_AMPERSAND = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)")


def to_utf8(data: bytes, problems: Problems) -> bytes:
    """Convert a report to UTF-8 without a byte order mark. Guesses are added to the problems."""
    for mark, encoding in (*_BOMS, *_WIDE):
        if data.startswith(mark):
            data = data.removeprefix(codecs.BOM_UTF8)
            return data if encoding == "utf-8" else data.decode(encoding, "replace").removeprefix("\ufeff").encode()
    declared = _declared(data, problems)
    if declared:
        try:
            return data.decode(declared).encode()
        except UnicodeError:
            problems.add(f"its text is not in the declared encoding {declared}")
    elif _is_utf8(data):
        return data
    else:
        problems.add("its text is not UTF-8: decoded as Windows-1252")
    return data if _is_utf8(data) else data.decode("cp1252", "replace").encode()


def repair_xml(data: bytes, problems: Problems) -> bytes:
    """Remove control characters from XML in UTF-8, and escape each & that begins no entity."""
    clean = data.translate(None, _FORBIDDEN)
    if len(clean) < len(data):
        problems.add("its XML has control characters, which are removed")
    return _STRAY_AMPERSAND.sub(b"&amp;", clean) if 0 < clean.count(b"&") <= MAX_AMPERSANDS else clean


def _declared(data: bytes, problems: Problems) -> str:
    """Return the encoding in the XML declaration. Empty if it is UTF-8, missing or unsupported."""
    match = _DECLARED.match(data[:300])
    if match is None:
        return ""
    named = match[1].decode()
    try:
        name = codecs.lookup(named).name
    except LookupError:
        name = ""
    if name == "utf-8":
        return ""
    if not _READABLE.match(name):
        problems.add(f"its XML declares the encoding {named}, which is not that of its text")
        return ""
    return name


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
