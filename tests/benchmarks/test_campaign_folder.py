"""The campaign of the benchmarks is one that Postroad sends."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from benchmarks.campaign_folder import AUDIENCE, CAMPAIGN, FolderOptions, build, write_recipients
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import launch
from postroad.settings import Settings

NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)


def test_the_campaign_of_the_benchmarks_is_applied_and_launched(engine: sa.Engine, tmp_path: Path) -> None:
    build(tmp_path, FolderOptions())
    settings = Settings.load(tmp_path / "postroad.toml")
    apply(engine, settings, read_campaign(tmp_path / "campaign.yaml", settings), NOW)
    write_recipients(tmp_path / "readers.csv", 10)
    import_file(engine, AUDIENCE, tmp_path / "readers.csv", NOW)
    assert launch(engine, CAMPAIGN, NOW).audience == 10
