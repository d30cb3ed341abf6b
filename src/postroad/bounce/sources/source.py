"""Common types of the polled sources, Maildir and IMAP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class FetchedMail(NamedTuple):
    """One mail of a source. ``raw`` None: the mail cannot be read, because of ``error``, and stays in the source."""

    key: str
    raw: bytes | None
    error: str = ""


class MailSource(Protocol):
    """An open mailbox. It returns each mail that was waiting when it was opened once.

    A mail that was fetched and not acknowledged is returned again when the mailbox is opened again, so a killed process
    loses no mail.
    """

    @property
    def waiting(self) -> int:
        """Number of mails that were not returned yet."""
        ...

    def fetch(self, limit: int) -> list[FetchedMail]:
        """Return the next mails, at most ``limit``. An empty list: no mail is left."""
        ...

    def acknowledge(self, keys: Sequence[str]) -> None:
        """Remove or mark mails that are stored. Idempotent."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class PollResult:
    """Number of mails of one poll: new, already stored, and unreadable. ``more``: the source has further mails."""

    source: str
    taken: int = 0
    known: int = 0
    unreadable: int = 0
    more: bool = False


@dataclass(frozen=True, kw_only=True)
class PollFailure:
    """A poll that failed, and its error."""

    source: str
    error: Exception
