from __future__ import annotations

from tests.on_uvloop import pytest_asyncio_loop_factories  # noqa: F401
from tests.shaping.shapers import clock, queue  # noqa: F401
