"""`postroad campaign status` says what a launch waits for, and that a request for it has expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from postroad.store.approval import Approval, ApprovalState, add_approval
from postroad.store.campaign import find_campaign
from postroad.store.engine import open_engine, sqlite_url, write
from tests.cli.site import CAMPAIGN, a_site


def test_an_expired_request_is_not_shown_as_one_that_waits(tmp_path: Path) -> None:
    with a_site(tmp_path) as site:
        (site.folder / "campaign.yaml").write_text(CAMPAIGN + "approval: always\n")
        assert site.run("campaign", "apply", "campaign.yaml").returncode == 0
        engine = open_engine(sqlite_url(site.folder / ".postroad"))
        asked = datetime.now(UTC) - timedelta(days=8)
        with write(engine) as connection:
            request = Approval(
                campaign_id=find_campaign(connection, "spring").id or 0,
                state=ApprovalState.OPEN,
                digest="0" * 64,
                people=1,
                summary="",
                requested_at=asked,
                requested_by="carl",
                expires_at=asked + timedelta(days=7),
            )
            add_approval(connection, request)
        engine.dispose()
        shown = site.run("campaign", "status", "spring").stdout
    assert "the request to launch it expired at" in shown
    assert "`postroad campaign launch spring` requests it again" in shown
    assert "waits for an approval" not in shown
