"""Outcomes and rows for tests of the pages' numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from postroad.read_model.page import Page

Row = TypeVar("Row")


def all_rows(page_after: Callable[[str | None], Page[Row]], *, pages: int = 1_000) -> list[Row]:
    """Return the rows of all pages. No page of a list is empty but for a last one."""
    rows: list[Row] = []
    after: str | None = None
    for _ in range(pages):
        page = page_after(after)
        rows += page.rows
        if page.next is None:
            return rows
        assert page.next != after
        after = page.next
    raise AssertionError("the list does not end")
