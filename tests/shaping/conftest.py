from __future__ import annotations

from tests.delivery.conftest import queue  # noqa: F401
from tests.on_uvloop import pytest_asyncio_loop_factories  # noqa: F401
