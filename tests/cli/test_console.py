"""postroad console and postroad audit: users, links, and a server that is closed by default."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import httpx
import pytest

from tests.cli.site import Site, a_site

PASSWORD = "correct horse battery staple"


class Piped(StringIO):
    """Standard input that is no terminal."""

    def isatty(self) -> bool:
        return False


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("site")) as site:
        yield site


def run(site: Site, *words: str, code: int = 0, stdin: str = "") -> str:
    with patch("sys.stdin", Piped(stdin)):
        done = site.run(*words)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_a_user_is_added_changed_listed_and_removed(site: Site) -> None:
    added = run(site, "console", "user", "add", "ada", "--role", "operate", "--json", stdin=f"{PASSWORD}\nmore\n")
    assert json.loads(added) == {"user": "ada", "role": "operate", "new": True}
    assert "ada is changed" in run(site, "console", "user", "add", "ada", "--role", "own", stdin=PASSWORD)
    (user,) = json.loads(run(site, "console", "user", "list", "--json"))
    assert (user["user"], user["role"]) == ("ada", "own")
    assert PASSWORD not in str(user)
    assert "argon2" not in str(user)
    assert "ada is removed" in run(site, "console", "user", "remove", "ada")
    assert json.loads(run(site, "console", "user", "list", "--json")) == []
    records = json.loads(run(site, "audit", "list", "--json"))
    assert [record["action"] for record in records] == ["user.remove", "user.change", "user.add"]
    assert {record["target"] for record in records} == {"ada"}
    assert "user.change" in run(site, "audit", "list", "--action", "user.change")
    assert json.loads(run(site, "audit", "list", "--by", "grace", "--json")) == []


@pytest.mark.parametrize(
    ("stdin", "problem"), [("", "standard input has no password"), ("short\n", "the password has 5 characters")]
)
def test_a_password_that_is_missing_or_short_is_refused(site: Site, stdin: str, problem: str) -> None:
    error = run(site, "console", "user", "add", "grace", code=2, stdin=stdin)
    assert problem in error
    assert json.loads(run(site, "console", "user", "list", "--json")) == []


@pytest.mark.parametrize("name", ["", " ", "a/b", "x" * 201, "a\x1b[2J"])
def test_a_name_that_is_not_valid_is_refused(site: Site, name: str) -> None:
    assert "the user's name is not valid" in run(site, "console", "user", "add", name, code=2, stdin=PASSWORD)
    assert "the user's name is not valid" in run(site, "console", "link", "--name", name, code=2)


def test_a_password_is_no_argument(site: Site) -> None:
    help_ = run(site, "console", "user", "add", "--help")
    assert "--password" not in help_


def test_the_console_serves_until_it_is_stopped_and_a_printed_link_signs_in(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "postroad", "console", "--port", "0"]
        process = subprocess.Popen(command, cwd=site.folder, env=site.environment, stdout=out, stderr=out)
    try:
        deadline_s = time.monotonic() + 50
        while (found := re.search(r"the console listens at (http://127\.0\.0\.1:\d+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        made = json.loads(run(site, "console", "link", "--role", "own", "--name", "ada", "--json"))
        token = urlsplit(made["url"]).query.partition("token=")[2]
        with httpx.Client(base_url=found[1], headers={"Origin": found[1]}, timeout=30) as http:
            assert http.get("/healthz").json() == {"service": "postroad", "database": "ok"}
            assert http.post("/sign-in/link", data={"token": token}).status_code == 303
            assert "Does mail flow" in http.get("/").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    text = log.read_text()
    assert token not in text
    assert "Traceback" not in text
    assert "the console stopped" in text


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({}, "console.url is not an https:// URL"),
        ({"POSTROAD_CONSOLE__URL": "https://console.example.com"}, "no way to sign in is set"),
    ],
)
def test_it_refuses_to_serve_others_without_a_sign_in(site: Site, variables: dict[str, str], problem: str) -> None:
    with patch.dict(site.environment, variables):
        error = run(site, "console", "--host", "0.0.0.0", "--port", "0", code=3)  # noqa: S104
    assert problem in error
    assert "console.host 0.0.0.0" in error


def test_options_of_serving_are_refused_with_another_command(site: Site) -> None:
    assert "without a command" in run(site, "console", "--port", "1", "user", "list", code=2)
    assert os.environ.get("POSTROAD_CONSOLE__URL") is None
