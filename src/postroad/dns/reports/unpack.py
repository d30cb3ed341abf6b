"""Decompresses untrusted reports, up to a maximum size."""

from __future__ import annotations

import io
import zipfile
import zlib

from postroad.errors import DataError

MAX_PACKED_BYTES = 10 * 1024 * 1024
MAX_BYTES = 20 * 1024 * 1024
"""Maximum size of a decompressed report. Those of large receivers for large senders have a few megabytes."""

MAX_MEMBERS = 16
"""Maximum number of members of a gzip file. A report has one."""
MAX_ENTRIES = 64
"""Maximum number of entries of a zip file, counted by their signatures before the directory is read."""

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_ENTRY = b"PK\x01\x02"


def unpack(data: bytes) -> bytes:
    """Return the only file in a gzip or zip, or other data unchanged. Raises DataError for an invalid archive."""
    if len(data) > MAX_PACKED_BYTES:
        raise DataError(f"it has {len(data):,} bytes; at most {MAX_PACKED_BYTES:,} are read")
    if data.startswith(_GZIP):
        return _gunzip(data)
    if data.startswith(_ZIP):
        return _unzip(data)
    return data


def _gunzip(data: bytes) -> bytes:
    out, members = bytearray(), 0
    while data:  # RFC 1952 §2.2: a file is a series of members
        members += 1
        if members > MAX_MEMBERS:
            raise DataError(f"its gzip has more than {MAX_MEMBERS} members")
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            out += member.decompress(data, MAX_BYTES + 1 - len(out))
        except zlib.error as error:
            raise DataError(f"its gzip is broken: {error}") from None
        if len(out) > MAX_BYTES:
            raise _bomb()
        if not member.eof:
            raise DataError("its gzip ends too early")
        data = member.unused_data.lstrip(b"\x00")
        if not data.startswith(_GZIP):
            break  # gzip also ignores what follows the last member.
    return bytes(out)


def _unzip(data: bytes) -> bytes:
    if data.count(_ENTRY) > MAX_ENTRIES:
        raise DataError(f"its zip has more than {MAX_ENTRIES} files; a report is one")
    try:
        # The size in the archive may be wrong, so reading is limited.
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(_report_in(archive)) as file:
            out = file.read(MAX_BYTES + 1)
    except DataError:
        raise
    except Exception as error:  # zipfile raises various exceptions for a damaged archive.
        raise DataError(f"its zip is broken: {type(error).__name__}: {str(error)[:100]}") from None
    if len(out) > MAX_BYTES:
        raise _bomb()
    return out


def _report_in(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    files = [entry for entry in archive.infolist() if not (entry.is_dir() or entry.filename.startswith("__MACOSX/"))]
    if len(files) != 1:
        raise DataError(f"its zip has {len(files)} files; a report is one")
    if files[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError("its zip is not compressed by deflate")  # LZMA can require gigabytes of memory.
    return files[0]


def _bomb() -> DataError:
    return DataError(f"decompressed, it has more than {MAX_BYTES:,} bytes")
