"""postroad warmup: what a plan comes to needs no setup; what holds is shown and changed with a name and a reason."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col

from postroad.app.context import ready_engine
from postroad.settings import Settings
from postroad.store.campaign import Campaign
from postroad.store.engine import write
from postroad.store.ledger import Overflow, TouchState
from tests.cli.conftest import SETTINGS, Run
from tests.store.rows import NOW, add_campaign, add_touch


def test_a_simulation_needs_no_setup(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "postroad", "warmup", "simulate", "--days", "45", "--bounce", "0.01", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    days = json.loads(done.stdout)
    assert [day["number"] for day in days] == list(range(1, 46))
    assert days[19]["cap"] == days[19]["planned"] > 250_000
    assert sum(day["bounced"] for day in days) / sum(day["attempts"] for day in days) == pytest.approx(0.01, rel=0.01)
    assert list(tmp_path.iterdir()) == []


def test_a_simulation_shows_a_picture_and_why(run: Run) -> None:
    shown = run("warmup", "simulate", "--days", "9", "--bounce", "0.2").stdout
    assert "│ is the plan" in shown
    assert "█" in shown
    assert "pause" in shown


def test_a_plan_is_that_of_the_preset(run: Run) -> None:
    shown = run("warmup", "plan", "--preset", "linear", "--ceiling", "12", "--days", "4", "--json").stdout
    assert [day["cap"] for day in json.loads(shown)] == [10, 11, 12, 12]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("plan", "--provider", "nobody"), 7, "no mailbox provider named 'nobody'"),
        (("plan", "--preset", "table"), 2, "table is required with preset 'table'"),
        (("plan", "--sender", "ada"), 3, "sender ada does not warm up"),
        (("status", "nobody"), 7, "no sender named 'nobody'"),
        (("override", "ada", "google", "--cap", "5", "--why", "x"), 3, "sender ada does not warm up"),
        (("override", "ada", "google", "--cap", "5", "--why", " "), 2, "--why is empty"),
    ],
)
def test_what_cannot_be_is_said(run: Run, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = run("warmup", *arguments)
    assert done.returncode == code
    assert says in done.stderr


@pytest.mark.timeout(180)
def test_an_override_holds_and_is_shown_with_who_and_why(run: Run, tmp_path: Path, redis_url: str) -> None:
    warm = "[senders.ada.warmup]\n[routes.relay]"
    (tmp_path / "postroad.toml").write_text(SETTINGS.replace("[routes.relay]", warm))
    where = {"POSTROAD_REDIS_URL": redis_url}
    done = run(
        "warmup", "override", "ada", "google", "--cap", "700", "--why", "known there", "--by", "ada", "--json", **where
    )
    assert json.loads(done.stdout)["identities"] == ["ada@example.com", "example.com"]
    gates = json.loads(run("queue", "gate", "list", "--json", **where).stdout)
    [gate] = [gate for gate in gates if gate["gate"]["name"] == "warmup:google:ada@example.com"]
    assert gate["gate"]["rate"]["count"] == 700
    shown = json.loads(run("warmup", "status", "ada", "--json", **where).stdout)
    assert {each["days"][-1]["cap"] for each in shown["caps"]} == {700}
    assert {(each["by"], each["why"]) for each in shown["overrides"]} == {("ada", "known there")}


@pytest.mark.timeout(180)
def test_what_a_provider_reports_is_imported_and_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "postroad.toml").write_text(SETTINGS.replace("[routes.relay]", "[senders.ada.warmup]\n[routes.relay]"))
    day = datetime.now(UTC).date()
    (tmp_path / "gmail.csv").write_text(f"Date,Spam rate\n{day},0.31%\n")
    arguments = ("warmup", "import", "postmaster", "gmail.csv", "--domain", "Example.com")
    first = json.loads(run(*arguments, "--json").stdout)
    assert first == {"file": "gmail.csv", "days": 1, "new": 1, "of": ["example.com"], "nobodys": []}
    (tmp_path / "snds.csv").write_text(f"192.0.2.9,{day:%m/%d/%Y} 1:00 AM,,1,1,1,GREEN,< 0.1%,,,0,,,\n")
    assert "No sender that warms up is known by 192.0.2.9" in run("warmup", "import", "snds", "snds.csv").stdout
    shown = json.loads(run("warmup", "status", "--json").stdout)
    assert [(each["subject"], each["spam_rate"]) for each in shown["reported"]] == [("example.com", 0.0031)]


def test_what_overflow_did_is_shown(run: Run, tmp_path: Path) -> None:
    engine = ready_engine(Settings.load(tmp_path / "postroad.toml"))
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring")
        other, _ = add_campaign(connection, name="quiet")
        senders = sa.select(col(Campaign.id), col(Campaign.sender_id)).where(col(Campaign.id).in_((campaign, other)))
        by_campaign = dict(connection.execute(senders).tuples().all())
        for state in (TouchState.ACCEPTED, TouchState.ACCEPTED, TouchState.QUEUED):
            touch = add_touch(connection, campaign, step, state)
            row = {"from_sender_id": by_campaign[campaign], "sender_id": by_campaign[other], "at": NOW, "why": "full"}
            connection.execute(sa.insert(Overflow).values(touch_id=touch, step_id=step, **row))
    engine.dispose()
    [moved] = json.loads(run("warmup", "overflow", "spring", "--json").stdout)
    assert (moved["messages"], moved["accepted"], moved["waiting"], moved["why"]) == (3, 2, 1, "full")
    assert moved["states"] == {"accepted": 2, "queued": 1}
    assert moved["from_sender"] != moved["sender"]
    assert moved["sender"] in run("warmup", "overflow", "spring", COLUMNS="200").stdout
    assert "Nothing of quiet" in run("warmup", "overflow", "quiet").stdout
    assert run("warmup", "overflow", "summer").returncode == 7
