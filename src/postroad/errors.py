"""The tree of errors. An error names the problem, its source, and a remedy.

::

    PostroadError            exit code
    ├── UsageError           2   the command or its arguments cannot be used
    ├── ConfigError          3   postroad.toml, the environment, a campaign file or a template is wrong
    ├── DataError            4   an input (a CSV, a suppression list) cannot be read
    ├── PreflightError       5   the campaign fails preflight and cannot be launched
    ├── UnavailableError     6   a required server is unreachable; a retry may help
    └── StateError           7   the request is not possible in the current state
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from enum import StrEnum


class Blame(StrEnum):
    """Source of a failure. It decides who is notified, and whose mail is held back."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    SENDER = "sender"
    HOST = "host"
    US = "us"


class PostroadError(Exception):
    """Base of every error that is shown to a user.

    ``message``: one sentence; ``where``: file, line and field; ``remedy``: a sentence with the next step.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        remedy = f"\n{self.remedy}" if self.remedy else ""
        return f"{where}{self.message}{remedy}"


class UsageError(PostroadError):
    """The command or its arguments cannot be used."""

    exit_code = 2


class ConfigError(PostroadError):
    """postroad.toml, the environment, a campaign file or a template is wrong."""

    exit_code = 3


class DataError(PostroadError):
    """An input cannot be read. Nothing of it was stored."""

    exit_code = 4


class PreflightError(PostroadError):
    """The campaign fails preflight and cannot be launched."""

    exit_code = 5


class UnavailableError(PostroadError):
    """A required server is unreachable. This is the only transient error: callers may retry."""

    exit_code = 6


class StateError(PostroadError):
    """The request is not possible in the current state. ``missing``: what it names does not exist."""

    exit_code = 7

    def __init__(
        self, message: str, *, where: str | None = None, remedy: str | None = None, missing: bool = False
    ) -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.missing = missing


FEW_NAMES = 8
"""Largest number of names that an error lists."""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return at most three known names that are similar to this one, the most similar first."""
    return get_close_matches(name, sorted(set(known)), n=3)


def did_you_mean(names: Sequence[str]) -> str:
    """Return a question whether one of these names is meant, or an empty text without names."""
    return f"Did you mean {' or '.join(map(repr, names))}?" if names else ""


def unknown_name(kind: str, name: str, known: Iterable[str], *, listed_by: str = "") -> StateError:
    """Return the error for a name that does not exist, with similar names.

    Args:
        kind: Kind of the named object, such as ``campaign``.
        name: The unknown name.
        known: The existing names.
        listed_by: The command that lists the names.

    Returns:
        The error.
    """
    names = sorted(set(known))
    hints = []
    if near := near_names(name, names):
        hints.append(did_you_mean(near))
    elif len(names) <= FEW_NAMES:
        hints.append(f"Known: {', '.join(names)}." if names else f"There is no {kind} yet.")
    if listed_by:
        hints.append(f"`{listed_by}` lists them.")
    return StateError(f"there is no {kind} named {name!r}", remedy=" ".join(hints) or None, missing=True)
