"""Reads a Maildir as a source: mails in ``new`` are waiting, and one rename to ``cur`` acknowledges a mail.

https://cr.yp.to/proto/maildir.html: a writer creates a file in ``tmp`` and renames it to ``new``, so that files in
``new`` are complete. A reader renames it to ``cur`` and appends ``:2,`` and flags, of which S is *seen*.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from postroad.bounce.mime import MAX_MESSAGE_BYTES
from postroad.bounce.sources.source import FetchedMail
from postroad.bounce.truncation import MAX_PAGE_BYTES, truncated_length
from postroad.errors import ConfigError, UnavailableError

_SEEN = ":2,S"


class Maildir:
    """One Maildir. Its keys are file names."""

    def __init__(self, path: Path, *, delete: bool = False) -> None:
        """List the waiting mails.

        Args:
            path: Directory of the Maildir.
            delete: Whether to delete acknowledged mails.

        Raises:
            ConfigError: The directory is not a Maildir.
            UnavailableError: The directory cannot be read.
        """
        self._new, self._cur = path / "new", path / "cur"
        self._delete = delete
        if not (self._new.is_dir() and self._cur.is_dir()):
            raise ConfigError(
                "there is no Maildir: a folder with new, cur and tmp in it", where=str(path), remedy="Correct the path."
            )
        try:
            self._waiting = sorted((file.name for file in self._new.iterdir() if file.name[:1] != "."), reverse=True)
        except OSError as error:
            raise UnavailableError(f"{self._new} cannot be read: {error.strerror}") from None

    @property
    def waiting(self) -> int:
        """Number of mails that were not returned yet."""
        return len(self._waiting)

    def fetch(self, limit: int) -> list[FetchedMail]:
        """Return the next mails, at most ``limit`` and about MAX_PAGE_BYTES."""
        page: list[FetchedMail] = []
        left_bytes = MAX_PAGE_BYTES
        while self._waiting and len(page) < limit and left_bytes > 0:
            name = self._waiting.pop()
            try:
                raw = _read(self._new / name)
                page.append(FetchedMail(name, raw))
                left_bytes -= len(raw)
            except FileNotFoundError:
                continue  # Another reader has moved it.
            except OSError as error:
                page.append(FetchedMail(name, None, error.strerror or "it cannot be read"))
        return page

    def acknowledge(self, keys: Sequence[str]) -> None:
        """Move mails to ``cur``, or delete them. Idempotent. Raises UnavailableError."""
        for name in keys:
            try:
                if self._delete:
                    (self._new / name).unlink()
                else:
                    (self._new / name).rename(self._cur / f"{name.partition(':')[0]}{_SEEN}")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UnavailableError(f"{self._new / name} cannot be put aside: {error.strerror}") from None

    def close(self) -> None:
        """Do nothing: a Maildir has no connection."""


def _read(path: Path) -> bytes:
    """Read a regular file, truncated. Symbolic links are not followed, because they could expose any file."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no regular file")
        beginning = file.read(MAX_MESSAGE_BYTES)
        return beginning + file.read(truncated_length(beginning) - MAX_MESSAGE_BYTES)
