"""`postroad campaign widen` shows how many people the next share has, and lets it go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from postroad.campaign.plan import launch
from postroad.store.engine import open_engine, sqlite_url
from tests.cli.site import CAMPAIGN, Site, a_site


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose campaign is launched: of 40 people, 10 are in its first share."""
    with a_site(tmp_path_factory.mktemp("site")) as site:
        rows = [f"r{n}@gmail.com,Reader {n}" for n in range(39)]
        (site.folder / "more.csv").write_text("\n".join(["address,first_name", *rows]) + "\n")
        assert site.run("audience", "import", "people", "more.csv").returncode == 0
        (site.folder / "campaign.yaml").write_text(CAMPAIGN + "rollout: [25%, 100%]\n")
        assert site.run("campaign", "apply", "campaign.yaml").returncode == 0
        yield site


def launched(site: Site) -> None:
    engine = open_engine(sqlite_url(site.folder / ".postroad"))
    launch(engine, "spring", datetime.now(UTC))
    engine.dispose()


def test_a_dry_run_warns_that_the_first_share_is_too_small(site: Site) -> None:
    done = site.run("campaign", "launch", "spring", "--dry-run", "--json")
    codes = [finding["code"] for finding in json.loads(done.stdout)["findings"]]
    assert "rollout.small-share" in codes


def test_the_next_share_is_shown_held_and_let_go(site: Site) -> None:
    launched(site)
    assert site.run("advance").returncode == 0
    status = json.loads(site.run("campaign", "status", "spring", "--json").stdout)
    assert [(share["number"], share["percent"], share["people"]) for share in status["rollout"]] == [
        (1, 25.0, 10),
        (2, 100.0, 30),
    ]
    assert status["rollout"][1]["held_because"] == "outcomes"
    assert status["counts"]["withheld"] == 30
    shown = site.run("campaign", "status", "spring").stdout
    assert "share 2 is not let go since" in shown

    done = site.run("campaign", "widen", "spring", "--yes", "--by", "ada")
    assert done.returncode == 0, done.stderr
    first, second, last = done.stdout.splitlines()
    assert first.startswith("share 2 of 2 of campaign spring has 30 people")
    assert "the outcomes of 10 of 10 messages are not known" in second
    assert last == "share 2 of campaign spring is let go"
    status = json.loads(site.run("campaign", "status", "spring", "--json").stdout)
    assert status["rollout"][1]["opened_by"] == "ada"
    assert status["counts"]["withheld"] == 0
    assert "every share of campaign spring was let go" in site.run("campaign", "widen", "spring", "--yes").stdout
    again = json.loads(site.run("campaign", "widen", "spring", "--yes", "--json").stdout)
    assert again == {"campaign": "spring", "share": None, "people": 0, "already": True}


def test_a_campaign_that_was_not_launched_has_no_share_to_let_go(site: Site) -> None:
    done = site.run("campaign", "widen", "spring", "--yes")
    assert done.returncode == 7
    assert "campaign spring is draft, so no share of it can be let go" in done.stderr
    assert "`postroad campaign launch spring` lets the first share go." in done.stderr
