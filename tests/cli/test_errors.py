"""An error is one message with the place and a remedy, and has its own exit code."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from postroad.embedded import ensure_redis, redis_running, stop_redis
from postroad.errors import UnavailableError
from postroad.sandbox import Sandbox, SandboxConfig
from tests.cli.conftest import SETTINGS, Run


def assert_said(result: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> None:
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_settings_file_that_is_no_toml(run: Run, tmp_path: Path) -> None:
    (tmp_path / "postroad.toml").write_text("public_url = \n")
    assert_said(run("campaign", "status"), 3, "postroad.toml", "line 1")


def test_setting_of_a_wrong_kind_names_its_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "postroad.toml").write_text(SETTINGS.replace("port = 1", 'port = "many"'))
    assert_said(run("campaign", "status"), 3, "postroad.toml", "line 9", "routes.relay.port")


def test_redis_that_does_not_answer(run: Run) -> None:
    result = run("queue", "stats", POSTROAD_REDIS_URL="redis://:s3cret@127.0.0.1:1/0")
    assert_said(result, 6)
    assert "s3cret" not in result.stdout + result.stderr


def test_address_that_is_none_does_not_show_its_password(run: Run) -> None:
    result = run("queue", "stats", POSTROAD_REDIS_URL="rodis://:s3cret@127.0.0.1:1/0")
    assert_said(result, 3)
    assert "s3cret" not in result.stdout + result.stderr


def test_database_that_does_not_answer(run: Run) -> None:
    result = run("campaign", "status", POSTROAD_DATABASE_URL="postgresql://ada:s3cret@127.0.0.1:1/none")
    assert_said(result, 6, "the database does not answer")
    assert "s3cret" not in result.stdout + result.stderr


def test_broken_csv_names_file_and_line_and_keeps_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("address,first_name\na@example.com,A\nb@example.com\n")
    assert_said(run("audience", "import", "people", "people.csv"), 4, "people.csv", "line 3", "1 fields")
    assert run("audience", "list", "--json").stdout == "[]\n"


def test_campaign_that_is_not_there(run: Run) -> None:
    assert_said(run("campaign", "status", "spring"), 7, "spring", "campaign apply")


def test_launch_that_preflight_refuses_says_everything(run: Run, tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text("Hello {{ first_name }}\n")
    (tmp_path / "campaign.yaml").write_text(
        "name: spring\nsender: ada\naudience: {name: people}\n"
        "steps:\n  - {email: hello, subject: Hello, text: hello.txt}\n"
    )
    assert run("campaign", "apply", "campaign.yaml").returncode == 0
    result = run("campaign", "launch", "spring", "--dry-run")
    assert_said(result, 5, "its audience 'people' is empty", "unsubscribe_url", "postal_address")


def test_doctor_says_what_is_wrong_and_fails(run: Run, tmp_path: Path) -> None:
    try:
        result = run("doctor", PREFECT_API_URL="http://127.0.0.1:1/api")
        assert result.returncode == 1
        assert "fail route relay" in result.stdout
        assert "ok   database" in result.stdout
        assert "ok   redis" in result.stdout
        assert "warn prefect" in result.stdout
    finally:
        stop_redis(tmp_path / ".postroad")


async def test_doctor_says_what_to_correct_where_a_relay_refuses_the_login(run: Run, tmp_path: Path) -> None:
    config = SandboxConfig(directory=str(tmp_path / "sandbox"), credentials={"ada": "correct horse"}, require_auth=True)
    async with Sandbox(config, rng=Random(7)) as sandbox:
        login = f'port = {sandbox.port}\nusername = "ada"\nclear_text_login = true'
        (tmp_path / "postroad.toml").write_text(SETTINGS.replace("port = 1", login))
        password = {"POSTROAD_ROUTES__RELAY__PASSWORD": "wrong pony"}
        try:
            result = await asyncio.to_thread(run, "doctor", PREFECT_API_URL="http://127.0.0.1:1/api", **password)
        finally:
            stop_redis(tmp_path / ".postroad")
        said = " ".join(result.stdout.split())
        assert f"127.0.0.1:{sandbox.port} refuses the login of ada: 535 5.7.8" in said
    assert "the password in POSTROAD_ROUTES__RELAY__PASSWORD" in said
    assert "pony" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("worker", "--rate", "fast"),
        ("worker", "email:send", "--queue", "bounce:process"),
        ("bounce", "status", "--since", "long ago"),
        ("worker", "--concurrency", "0"),
        ("queue", "replay"),
        ("queue", "dead", "--by", "colour"),
        ("suppression", "add", "nobody"),
        ("campaign", "fly"),
    ],
)
def test_words_that_cannot_be_used(run: Run, words: tuple[str, ...]) -> None:
    assert_said(run(*words), 2)


def test_an_error_of_concurrent_tasks_is_reported_as_any_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = ExceptionGroup("beside", [UnavailableError("the queue is away", remedy="Start it.")])

    def fail(*, standalone_mode: bool) -> None:
        raise ExceptionGroup("together", [inner, ValueError("and something else")])

    monkeypatch.setattr("postroad.cli.app.app", fail)
    assert_said(run("campaign", "status"), 6, "the queue is away", "Start it.")


@pytest.mark.parametrize("words", [("up",), ("doctor",), ("campaign", "status"), ("advance",), ("worker",)])
def test_a_state_folder_that_cannot_be_made_is_named(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    state_dir = tmp_path / "file" / "state"
    result = run(*words, POSTROAD_STATE_DIR=str(state_dir))
    assert_said(result, 3, str(state_dir), "cannot be used")
    assert "Traceback" not in result.stderr


def test_down_says_what_it_stops(run: Run, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    there = {"POSTROAD_STATE_DIR": str(state_dir)}
    assert f"the embedded queue server of {state_dir} was not running" in run("down", **there).stdout
    ensure_redis(state_dir)
    stopped = run("down", "--json", **there)
    assert json.loads(stopped.stdout) == {"stopped": True, "what": "queue server", "state_dir": str(state_dir)}


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [(None, 3, "no Prefect server is named"), ("http://127.0.0.1:9/api", 6, "no Prefect server answers")],
)
def test_a_bootstrap_without_a_server_ends_without_a_traceback(url: str | None, code: int, said: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    named = {} if url is None else {"PREFECT_API_URL": url}
    command = [sys.executable, "-m", "deployments.bootstrap"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=environment | named, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_down_refuses_while_everything_runs(run: Run, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    there = {"POSTROAD_STATE_DIR": str(state_dir)}
    ensure_redis(state_dir)
    with (state_dir / "house.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert_said(run("down", **there), 7, "`postroad up` or `postroad demo` runs", "Ctrl-C")
        assert redis_running(state_dir)
        assert run("down", "--force", **there).returncode == 0
    assert not redis_running(state_dir)


def test_an_error_with_lines_is_printed_as_lines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*, standalone_mode: bool) -> None:
        raise UnavailableError("worker ended", remedy="Its log ends:\nfirst\nsecond")

    monkeypatch.setattr("postroad.cli.app.app", fail)
    lines = run("campaign", "status").stderr.splitlines()
    assert [line.strip() for line in lines[-3:]] == ["Its log ends:", "first", "second"]
