"""What every source that is polled has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Fetched(NamedTuple):
    """One mail of a source. ``raw`` None: it is there and cannot be read, for this reason; it stays where it is."""

    key: str
    raw: bytes | None
    trouble: str = ""


class MailSource(Protocol):
    """A mailbox, opened. It knows what was waiting when it was opened, and hands that out once.

    What is fetched and not acknowledged is still there when the mailbox is opened again: whoever is killed between the
    two loses nothing.
    """

    @property
    def waiting(self) -> int:
        """How many mails it has that were not handed out yet."""
        ...

    def fetch(self, limit: int) -> list[Fetched]:
        """The next mails, no more than this many; none: that was all."""
        ...

    def acknowledge(self, keys: Sequence[str]) -> None:
        """Put aside mails that are kept elsewhere now. Doing so twice is harmless."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Polled:
    """What one pass did, in mails. ``more``: there is more than one pass takes."""

    source: str
    taken: int = 0
    known: int = 0
    unreadable: int = 0
    more: bool = False


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A source that could not be looked into, or not to the end, and why."""

    source: str
    error: Exception
