"""Every test of a campaign that touches the store runs on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.campaign.house import House


@pytest.fixture
def house(tmp_path: Path, engine: sa.Engine) -> House:
    """An operator's folder, on each kind of database."""
    return House(tmp_path, engine)
