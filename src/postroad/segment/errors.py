"""The error of a condition that cannot be used."""

from __future__ import annotations

from postroad.errors import ConfigError

MAX_CONDITION_CHARACTERS = 4_000
"""Longest text of a condition, wherever it is written."""


class ConditionError(ConfigError):
    """A condition cannot be used.

    ``column``: place of the fault in the text of the condition; the first character is 1.
    """

    def __init__(self, message: str, column: int, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message, where=where or f"condition, column {column}", remedy=remedy)
        self.column = column
