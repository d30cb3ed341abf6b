"""Texts of strangers in CSV files that people open in a spreadsheet, which reads some texts as formulas.

An address such as ``=cmd|'/c'!a0@example.com`` is valid, and a formula. Such a cell gets an apostrophe before it, which
spreadsheets and `read_cell` take off.
"""

from __future__ import annotations

import re
from typing import Final

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_DOMAIN: Final = re.compile(r"@[A-Za-z0-9.-]+")


def text_cell(text: str) -> str:
    """Return a text as a cell that no spreadsheet evaluates. A domain, such as ``@example.com``, is no formula."""
    return f"'{text}" if _FORMULA.match(text) and not _DOMAIN.fullmatch(text) else text


def read_cell(cell: str) -> str:
    """Return the text of a cell that `text_cell` returned."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
