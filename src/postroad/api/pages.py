"""Cuts lists into pages, and makes answers of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")


def page_of(rows: list[Row], limit: int) -> tuple[list[Row], Row | None]:
    """Return the rows of a page, and its last row if another page follows. One row more than the limit was read."""
    shown = rows[:limit]
    return shown, shown[-1] if len(rows) > limit else None


def number_of(key: list[int | str] | None) -> int | None:
    """Return the number that a cursor names; None for the first page."""
    return int(key[0]) if key else None


def texts(values: Mapping[str, object]) -> dict[str, str]:
    """Return merge fields, as the texts that templates get."""
    return {name: str(value) for name, value in values.items()}
