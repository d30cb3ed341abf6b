"""What a test needs and does not find: a reason to skip it, and an error in CI, which must have it."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str, remedy: str) -> NoReturn:
    """Skip this test, or fail it in CI."""
    reason = f"{what} is not on this machine ({remedy})"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must test this: {reason}")
    pytest.skip(reason)
