"""Fixtures of campaigns. Tests that use the database run on PostgreSQL and SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.campaign.project import CampaignProject


@pytest.fixture
def project(tmp_path: Path, engine: sa.Engine) -> CampaignProject:
    """An operator's folder, with each kind of database."""
    return CampaignProject(tmp_path, engine)
