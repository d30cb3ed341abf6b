"""The archive of a backup: a tar file whose last member is the manifest, so that a cut file has none.

A member is written as its content comes, and hashed on the way; its header is filled in afterwards.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Protocol

from postroad.backup.manifest import MANIFEST, FileDigest, Manifest, decode_manifest, encode_manifest
from postroad.errors import DataError

CHUNK = 1 << 20
"""Bytes that are read at a time."""

_BLOCK = 512
_MAX_MANIFEST = 256 << 20


class Output(Protocol):
    """A file that is written from its start to its end."""

    def write(self, data: bytes, /) -> int:
        """Append bytes. Returns their number."""
        ...


class _Member:
    """Appends to a file, counts and hashes."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self._hash = sha256()
        self._bytes = 0

    def write(self, data: bytes, /) -> int:
        self._hash.update(data)
        self._bytes += len(data)
        return self._output.write(data)

    def digest(self) -> FileDigest:
        return FileDigest(self._bytes, self._hash.hexdigest())


class ArchiveWriter:
    """Writes an archive to an empty file that can seek."""

    def __init__(self, output: IO[bytes], at: datetime) -> None:
        self._output = output
        self._at = at
        self.files: dict[str, FileDigest] = {}

    @contextmanager
    def member(self, name: str) -> Iterator[Output]:
        """Add a member.

        Args:
            name: Its name.

        Yields:
            A file for its content.
        """
        start = self._output.tell()
        self._output.write(bytes(_BLOCK))
        content = _Member(self._output)
        yield content
        digest = self.files[name] = content.digest()
        self._output.write(bytes(-digest.bytes % _BLOCK))
        end = self._output.tell()
        self._output.seek(start)
        self._output.write(self._header(name, digest.bytes))
        self._output.seek(end)

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest, and end the archive."""
        with self.member(MANIFEST) as output:
            output.write(encode_manifest(manifest))
        self._output.write(bytes(2 * _BLOCK))

    def _header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, int(self._at.timestamp())
        return info.tobuf(tarfile.GNU_FORMAT)  # One block, also for more than 8 GiB.


class Archive:
    """An open archive."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self.path = path
        self._members = {info.name: info for info in tar}
        self._tar = tar
        if MANIFEST not in self._members:
            raise DataError(
                "the file is no backup, or it was cut: it has no manifest",
                where=str(path),
                remedy="Copy it again from where it was made, or use an earlier backup.",
            )
        with self.open(MANIFEST) as content:
            self.manifest = decode_manifest(content.read(_MAX_MANIFEST), str(path))

    def open(self, name: str) -> IO[bytes]:
        """Open a member. Raises DataError if there is no such file in the archive."""
        content = self._tar.extractfile(self._members[name]) if name in self._members else None
        if content is None:
            raise DataError(f"the backup is damaged: it has no {name}", where=str(self.path))
        return content

    def check(self, report: Callable[[int, int], None]) -> None:
        """Compare every member with its digest.

        Args:
            report: Called with the number of bytes that were read, and of all.

        Raises:
            DataError: A member is missing, or differs.
        """
        done, total = 0, sum(digest.bytes for digest in self.manifest.files.values())
        for name, expected in self.manifest.files.items():
            found, length = sha256(), 0
            with self.open(name) as content:
                while chunk := content.read(CHUNK):
                    found.update(chunk)
                    length += len(chunk)
                    report(done + length, total)
            done += length
            if FileDigest(length, found.hexdigest()) != expected:
                raise DataError(
                    f"the backup is damaged: the digest of {name} is not the manifest's",
                    where=str(self.path),
                    remedy="Copy it again from where it was made, or use an earlier backup.",
                )


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open the archive of a backup.

    Args:
        path: The file.

    Yields:
        The archive, of which only the manifest was read.

    Raises:
        DataError: The file is no backup, was cut or is damaged.
        ConfigError: A newer version wrote it.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            yield Archive(path, tar)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"the file is no backup, or it was cut: {error}",
            where=str(path),
            remedy="Copy it again from where it was made, or use an earlier backup.",
        ) from None
