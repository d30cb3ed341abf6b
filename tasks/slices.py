"""Size of the slices that task runs process."""

from __future__ import annotations

from typing import Final

MIN_ROWS: Final = 5_000
MAX_SLICES: Final = 40
"""A task run costs the Prefect server about 30 ms and 20 KB, and a burst of over fifty delays the next flow
run."""


def rows_per_slice(rows_total: int) -> int:
    """Return the number of rows of one task run, so that there are at most `MAX_SLICES` runs."""
    return max(MIN_ROWS, -(-rows_total // MAX_SLICES))
