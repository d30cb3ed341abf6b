"""Published test data, if it is available: POSTROAD_CORPORA names its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

REASON = "POSTROAD_CORPORA does not name the folder of conformance data"


def corpus(name: str) -> Path | None:
    """Return the folder of one source, or None if it is not available."""
    root = os.environ.get("POSTROAD_CORPORA")
    return Path(root) / name if root else None


def not_here(*values: Any) -> list[Any]:
    """Return a case that is skipped with a reason, for a parametrised test without its data."""
    return [pytest.param(*values, marks=pytest.mark.skip(reason=REASON), id="no-corpora")]
