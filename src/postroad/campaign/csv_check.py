"""Checks a whole CSV of recipients before an import, and that it does not change during the import."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from postroad.campaign.csv_file import open_csv, open_file
from postroad.campaign.file_access import FileRules
from postroad.errors import DataError


@dataclass(frozen=True, kw_only=True)
class CsvSummary:
    """Columns, size and digest of a checked file."""

    columns: tuple[str, ...]
    rows: int
    size_bytes: int
    sha256: str


def check_csv(path: Path, progress: Callable[[int], None] | None = None, rules: FileRules | None = None) -> CsvSummary:
    """Check a whole file before any of it is imported.

    Args:
        path: The file.
        progress: Called with the number of bytes read, every 10,000 rows.
        rules: Folders that the file may be in. None: any, because the operator named the file.

    Returns:
        The columns, size and digest of the file.

    Raises:
        DataError: The file cannot be read, or is not a CSV of recipients.
    """
    digest = hashlib.sha256()
    count = 0
    with open_csv(path, on_read=digest.update, rules=rules) as file:
        for count, _ in enumerate(file, start=1):
            if count % 10_000 == 0 and progress is not None:
                progress(file.position.cursor)
        return CsvSummary(columns=file.columns, rows=count, size_bytes=file.position.cursor, sha256=digest.hexdigest())


def require_unchanged(path: Path, sha256: str, since: datetime) -> None:
    """Raise DataError if a file changed since it was checked. It is read again only if its timestamps are newer.

    Args:
        path: The file.
        sha256: Digest of the checked file, in hexadecimal.
        since: When the file was checked.

    Raises:
        DataError: The file changed, or cannot be read.
    """
    try:
        status = path.stat()
        # Also ctime, because a copy may have the mtime of its original.
        if max(status.st_mtime, status.st_ctime) < since.timestamp():
            return
        with open_file(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if digest != sha256:
        raise DataError(
            "the file changed while it was imported",
            where=str(path),
            remedy="Import it again: its current content is imported from the first line.",
        )
