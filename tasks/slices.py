"""How much of the work one task run takes."""

from __future__ import annotations

from typing import Final

MIN_ROWS: Final = 5_000
MAX_SLICES: Final = 40
"""A task run costs the Prefect server about 30 ms and 20 KB, and a burst of over fifty delays the next flow
run."""


def rows_per_slice(rows_total: int) -> int:
    """Rows that one task run takes, so that all of them take at most `MAX_SLICES` task runs."""
    return max(MIN_ROWS, -(-rows_total // MAX_SLICES))
