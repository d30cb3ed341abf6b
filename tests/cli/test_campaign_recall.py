"""`postroad campaign recall` shows what it stopped, and lists who got it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import launch
from postroad.store.engine import open_engine, sqlite_url, write
from tests.cli.site import Site, a_site


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose campaign is launched: Bob's message was accepted, and Ada's waits."""
    with a_site(tmp_path_factory.mktemp("site")) as site:
        (site.folder / "more.csv").write_text("address,first_name\nada@example.org,Ada\n")
        assert site.run("audience", "import", "people", "more.csv").returncode == 0
        engine = open_engine(sqlite_url(site.folder / ".postroad"))
        launch(engine, "spring", datetime.now(UTC))
        with write(engine) as connection:
            accepted = (
                "UPDATE touch SET state = 'accepted', settled_at = '2026-05-04 08:30:00.000000' WHERE recipient_id = "
                "(SELECT id FROM recipient WHERE address = 'bob@example.org')"
            )
            connection.execute(sa.text(accepted))
        engine.dispose()
        yield site


def test_a_recall_stops_what_waits_and_lists_who_got_it(site: Site) -> None:
    done = site.run("campaign", "recall", "spring", "--yes", "--list", "reached.csv")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["cancelled", "1", "not", "sent,", "and", "will", "not", "be"] in lines
    assert ["accepted", "1", "the", "receiver", "has", "them"] in lines
    assert "reached.csv lists" in done.stdout
    with (site.folder / "reached.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["address", "step", "state", "at"],
        ["bob@example.org", "hello", "accepted", "2026-05-04T08:30:00+00:00"],
    ]
    again = site.run("campaign", "recall", "spring", "--yes", "--json")
    seen = json.loads(again.stdout)
    assert (seen["campaign"], seen["step"], seen["state"]) == ("spring", None, "cancelled")
    assert (seen["counts"]["cancelled"], seen["counts"]["accepted"]) == (1, 1)
    assert [(one["address"], one["state"]) for one in seen["recipients"]] == [("bob@example.org", "accepted")]


def test_an_address_is_no_formula_in_the_list(site: Site) -> None:
    engine = open_engine(sqlite_url(site.folder / ".postroad"))
    with write(engine) as connection:
        connection.execute(sa.text("UPDATE recipient SET address = '=1+1@example.org' WHERE address LIKE 'bob%'"))
    engine.dispose()
    assert site.run("campaign", "recall", "spring", "--yes", "--list", "reached.csv").returncode == 0
    with (site.folder / "reached.csv").open() as file:
        assert [row[0] for row in csv.reader(file)] == ["address", "'=1+1@example.org"]


def test_a_recalled_step_leaves_the_campaign_running(site: Site) -> None:
    done = site.run("campaign", "recall", "spring", "--step", "hello", "--yes", "--json")
    seen = json.loads(done.stdout)
    assert (seen["step"], seen["state"], seen["counts"]["cancelled"]) == ("hello", "running", 1)


def test_a_file_that_cannot_be_written_is_an_error_after_the_recall(site: Site) -> None:
    done = site.run("campaign", "recall", "spring", "--yes", "--list", "no/such/folder.csv")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "It is recalled." in done.stderr
    status = json.loads(site.run("campaign", "status", "spring", "--json").stdout)
    assert "cancelled" in json.dumps(status)
