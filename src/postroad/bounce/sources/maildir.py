"""A Maildir as a source: what is in ``new`` is waiting, and one rename puts it aside into ``cur``.

https://cr.yp.to/proto/maildir.html: who delivers writes into ``tmp`` and renames into ``new``, so that what is there is
whole; who reads renames into ``cur`` and adds flags behind ``:2,``, of which S is *seen*.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from postroad.bounce.kept import MAX_PAGE_BYTES, kept_bytes
from postroad.bounce.mime import MAX_MESSAGE_BYTES
from postroad.bounce.sources.fetched import Fetched
from postroad.errors import ConfigError, UnavailableError

_SEEN = ":2,S"


class Maildir:
    """One Maildir. Its keys are names of files."""

    def __init__(self, path: Path, *, delete: bool = False) -> None:
        """Raises ConfigError if it is none, UnavailableError if it cannot be looked into."""
        self._new, self._cur = path / "new", path / "cur"
        self._delete = delete
        if not (self._new.is_dir() and self._cur.is_dir()):
            raise ConfigError(
                "there is no Maildir: a folder with new, cur and tmp in it", where=str(path), remedy="Mend its path."
            )
        try:
            self._waiting = sorted((file.name for file in self._new.iterdir() if file.name[:1] != "."), reverse=True)
        except OSError as error:
            raise UnavailableError(f"{self._new} cannot be read: {error.strerror}") from None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def fetch(self, limit: int) -> list[Fetched]:
        found: list[Fetched] = []
        left = MAX_PAGE_BYTES
        while self._waiting and len(found) < limit and left > 0:
            name = self._waiting.pop()
            try:
                raw = _read(self._new / name)
                found.append(Fetched(name, raw))
                left -= len(raw)
            except FileNotFoundError:
                continue  # Somebody else has put it aside since.
            except OSError as error:
                found.append(Fetched(name, None, error.strerror or "it cannot be read"))
        return found

    def acknowledge(self, keys: Sequence[str]) -> None:
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
        """There is nothing to close."""


def _read(path: Path) -> bytes:
    """Octets of a regular file, as many as are ever looked at. A link might show any file of this machine."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no regular file")
        beginning = file.read(MAX_MESSAGE_BYTES)
        return beginning + file.read(kept_bytes(beginning) - MAX_MESSAGE_BYTES)
