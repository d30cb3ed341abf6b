"""Published test data, where this machine has it: POSTROAD_CORPORA names its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

REASON = "POSTROAD_CORPORA does not name the folder of conformance data"


def corpus(name: str) -> Path | None:
    """Folder of one source, or None where there is none on this machine."""
    root = os.environ.get("POSTROAD_CORPORA")
    return Path(root) / name if root else None


def not_here(*values: Any) -> list[Any]:
    """One case that is skipped, and says why, for a parametrised test without its data."""
    return [pytest.param(*values, marks=pytest.mark.skip(reason=REASON), id="no-corpora")]
