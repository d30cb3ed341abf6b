"""Reads mails from files: a single mail, an mbox (RFC 4155), a Maildir, or a directory of these."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from postroad.errors import DataError

_FROM_LINE = re.compile(rb"^From \S+ +(?:\w{3},? +\w{3} +\d{1,2}|\w{3},? +\d{1,2} +\w{3})\b[^\n]*\d{2}:\d{2}[^\n]*$")
MAX_FILE_BYTES = 1 << 30


def mails_in(path: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield each mail in a file or directory, with its file, in the order of file names.

    Raises:
        DataError: The path does not exist, or a file is too large or cannot be read.
    """
    if not path.exists():
        raise DataError("there is no such file or folder", where=str(path))
    for file in _files(path):
        try:
            yield from ((file, mail) for mail in _split(file))
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", where=str(file)) from None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / "cur").is_dir() and (path / "new").is_dir():
        # Files in tmp are not delivered yet.
        return sorted(file for name in ("new", "cur") for file in (path / name).iterdir() if file.is_file())
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def _split(file: Path) -> Iterator[bytes]:
    """Yield the mails of one file, which is an mbox if its first line is a From line.

    Not every writer ends a mail with an empty line. All writers quote a body line that looks like a From line.

    Raises:
        DataError: The file is too large.
    """
    if file.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"it has more than {MAX_FILE_BYTES} bytes", where=str(file), remedy="Split it.")
    with file.open("rb") as lines:
        mail: list[bytes] = []
        is_mbox = False
        for number, line in enumerate(lines):
            is_from_line = line.startswith(b"From ") and _FROM_LINE.match(line.rstrip(b"\r\n")) is not None
            if number == 0:
                is_mbox = is_from_line
            elif is_from_line and is_mbox:
                yield b"".join(mail)
                mail = []
            mail.append(line)
        if any(line.strip() for line in mail):
            yield b"".join(mail)
