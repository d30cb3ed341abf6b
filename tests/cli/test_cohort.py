"""postroad cohort, and what `up` and `doctor` make of the way back, on embedded parts."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from postroad.app.context import ready_engine
from postroad.cli.app import app
from postroad.embedded import stop_redis
from postroad.local.processes import Child, Command, Probe, Supervisor
from postroad.local.stack import start_bounces
from postroad.settings import CONFIG_VARIABLE, Settings
from postroad.store.cohort import CohortEvidence, CohortPause, add_pause
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "postroad.toml").write_text("")
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "postroad.toml"))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    yield tmp_path
    stop_redis(tmp_path / ".postroad")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def add_bad_list(site: Path) -> None:
    engine = ready_engine(Settings.load(site / "postroad.toml"))
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring")
        for number in range(10):
            ada = add_recipient(connection, f"{number}@gmail.com", source="fair")
            add_touch(connection, campaign, step, TouchState.ACCEPTED, recipient_id=ada, settled_at=NOW)
        pause = CohortPause(
            step_id=step,
            source="fair",
            provider="google",
            evidence=CohortEvidence.COMPLAINTS,
            reason="too many",
            at=NOW,
        )
        assert add_pause(connection, pause)
        assert not add_pause(connection, pause)
    engine.dispose()


def test_a_pause_is_shown_and_lifted_with_a_reason(site: Path) -> None:
    assert "No cohort is paused" in run("cohort", "list").output
    add_bad_list(site)
    [shown] = json.loads(run("cohort", "list", "--json").output)
    assert (shown["campaign"], shown["source"], shown["provider"]) == ("spring", "fair", "google")
    assert shown["reason"] == "too many"
    [standing] = json.loads(run("cohort", "status", "spring", "--json").output)
    assert (standing["tried"], standing["hard_bounces"], standing["paused"]) == (10, 0, True)
    assert standing["findings"] == {"hard_bounces": "open", "complaints": "open"}
    assert "spring" in run("cohort", "list").output
    assert run("cohort", "resume", "1").exit_code == 2
    assert run("cohort", "resume", str(shown["id"]), "--reason", " ").exit_code != 0
    lifted = run("cohort", "resume", str(shown["id"]), "--reason", "cleaned", "--by", "ada", "--json")
    assert json.loads(lifted.output)["lifted_by"] == "ada"
    assert json.loads(run("cohort", "list", "--json").output) == []
    assert "cleaned" in run("cohort", "list", "--lifted", "--json").output
    assert run("cohort", "resume", str(shown["id"]), "--reason", "again").exit_code != 0


def doctor() -> dict[str, dict[str, Any]]:
    return {check["part"]: check for check in json.loads(run("doctor", "--json").output)}


def test_doctor_looks_for_the_listener_and_the_worker_where_they_are_asked_for(site: Path) -> None:
    assert not {"inbound", "queue bounce:process"} & doctor().keys()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    (site / "postroad.toml").write_text(f'[inbound]\nenabled = true\nsmtp = "127.0.0.1:{port}"\n')
    checks = doctor()
    assert (checks["inbound"]["health"], checks["queue bounce:process"]["health"]) == ("fail", "ok")
    assert "there is no answer" in checks["inbound"]["seen"]


class Noting(Supervisor):
    """Records the commands that it should start."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.started: list[str] = []

    async def start(self, command: Command, *, ready: Probe | None = None, ready_within_s: float = 60.0) -> Child:
        self.started.append(" ".join(command.argv[3:]) + (" until it answers" if ready is not None else ""))
        return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("settings", "started"),
    [
        ("", []),
        ('[inbound]\nsmtp = "127.0.0.1:2526"\n', []),
        ("[inbound]\nenabled = true\n", ["worker bounce:process", "inbound until it answers"]),
        (
            '[bounce.sources.box]\nkind = "maildir"\npath = "box"\n',
            ["worker bounce:process", "bounce watch"],
        ),
    ],
)
async def test_up_starts_what_the_settings_ask_for(tmp_path: Path, settings: str, started: list[str]) -> None:
    (tmp_path / "postroad.toml").write_text(settings)
    supervisor = Noting(tmp_path)
    await start_bounces(Settings.load(tmp_path / "postroad.toml"), supervisor, lambda _: None)
    assert supervisor.started == started
