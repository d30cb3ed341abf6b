"""While a launch is under way: its file is counted once, and its page is linked in place of the button.

A launch that a real Prefect server runs is in tests/prefect/test_console_launch.py.
"""

from __future__ import annotations

import re
from uuid import uuid4

import pytest

from postroad.app.context import AppContext
from postroad.campaign.audience import import_file
from postroad.campaign.file_trial import FileTrial
from postroad.console.screens import launch
from postroad.forecast.coming import coming_recipients
from postroad.settings import AccessRole
from postroad.store.campaign import find_campaign
from postroad.store.campaign_run import add_run
from postroad.store.engine import write
from tests.campaign.project import CampaignProject
from tests.console.kit import Console
from tests.console.launch_project import FROM_FILE, START

NO_PREFECT = "http://127.0.0.1:1/api"


def begin_run(console: Console, name: str = "spring") -> str:
    """Record a run as its first task does. Returns its id."""
    run_id = str(uuid4())
    with write(console.engine) as connection:
        add_run(connection, run_id, find_campaign(connection, name).id or 0, console.parts.now())
    return run_id


async def test_a_draft_whose_launch_is_under_way_offers_no_other(
    console: Console,
    project: CampaignProject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NO_PREFECT)
    http = await console.client(AccessRole.SEND)
    assert START in (await http.get("/launch/spring")).text
    followed = f"/launch/spring/run/{begin_run(console)}"
    for path in ("/launch/spring", "/launch", "/campaigns/spring"):
        page = (await http.get(path)).text
        assert f'href="{followed}"' in page, path
        assert START not in page, path
        assert "Check and launch" not in page, path
    asked = await http.get("/launch/spring/start")
    assert (asked.status_code, asked.headers["location"]) == (303, followed)
    assert (await http.get(followed)).status_code == 200
    refused = await http.post("/launch/spring/start", data={"shown": "x"})
    assert refused.status_code == 409
    assert "campaign spring is being launched by another run" in refused.text
    assert console.audit() == []


async def test_a_viewer_sees_that_a_launch_is_under_way(
    console: Console,
    project: CampaignProject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NO_PREFECT)
    begin_run(console)
    page = (await (await console.client(AccessRole.VIEW)).get("/campaigns/spring")).text
    assert "It is being launched" in page
    assert "Follow the launch" not in page


async def test_the_page_counts_a_row_once_that_is_imported_meanwhile(
    console: Console,
    project: CampaignProject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = project.folder / "coming.csv"
    path.write_text("email,tz,name\n" + "".join(f"new{n}@example.com,UTC,New\n" for n in range(40)), encoding="utf-8")
    project.apply(FROM_FILE.replace("name: spring", "name: autumn"))

    def read_and_import(context: AppContext, name: str) -> FileTrial | None:
        trial = coming_recipients(context, name)
        import_file(context.engine, "coming", path, context.clock.now())
        return trial

    http = await console.client(AccessRole.SEND)
    before = await http.get("/launch/autumn")
    monkeypatch.setattr(launch, "coming_recipients", read_and_import)
    during = await http.get("/launch/autumn")
    monkeypatch.undo()
    after = await http.get("/launch/autumn")
    for page in (before, during, after):
        assert re.search(r"Recipients</dt>\s*<dd>40<", page.text), page.text
