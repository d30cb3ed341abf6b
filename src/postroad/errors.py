"""One error tree. An error says what happened, whose fault it is, and what to do next.

::

    PostroadError            exit code
    ├── UsageError           2   the command or its arguments cannot be used
    ├── ConfigError          3   postroad.toml, the environment, a campaign file or a template is wrong
    ├── DataError            4   what was handed in (a CSV, a suppression list) cannot be read
    ├── PreflightError       5   the campaign may not be launched as it stands
    ├── UnavailableError     6   a server that is needed does not answer; trying again may help
    └── StateError           7   the request does not fit the state that things are in
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from enum import StrEnum


class Blame(StrEnum):
    """Whose fault a failure is: it decides who is told and who is held back."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    SENDER = "sender"
    HOST = "host"
    US = "us"


class PostroadError(Exception):
    """Base of every error that is shown to a person: one sentence, where it is, and the next step.

    ``remedy`` is a sentence that says what to do; ``where`` names file, line and field.
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
    """What was handed in cannot be read. Nothing of it was kept."""

    exit_code = 4


class PreflightError(PostroadError):
    """The campaign may not be launched as it stands."""

    exit_code = 5


class UnavailableError(PostroadError):
    """A server that is needed does not answer. The one transient error: callers may try again."""

    exit_code = 6


class StateError(PostroadError):
    """The request does not fit the state that things are in."""

    exit_code = 7


FEW_NAMES = 8
"""So many names an error lists by itself."""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that are like this one, at most three, the most alike first."""
    return get_close_matches(name, sorted(set(known)), n=3)


def did_you_mean(names: Sequence[str]) -> str:
    """Return a sentence that asks whether one of these names is meant. It is empty without names."""
    return f"Did you mean {' or '.join(map(repr, names))}?" if names else ""


def unknown_name(kind: str, name: str, known: Iterable[str], *, listed_by: str = "") -> StateError:
    """Return the error for a name that does not exist: with names like it, and where all of them are listed.

    ``kind``: what it would be the name of, such as ``campaign``; ``listed_by``: the command that lists them.
    """
    names = sorted(set(known))
    hints = []
    if near := near_names(name, names):
        hints.append(did_you_mean(near))
    elif len(names) <= FEW_NAMES:
        hints.append(f"Known: {', '.join(names)}." if names else f"There is no {kind} yet.")
    if listed_by:
        hints.append(f"`{listed_by}` lists them.")
    return StateError(f"there is no {kind} named {name!r}", remedy=" ".join(hints) or None)
