"""postroad inbound and postroad bounce poll, as a person runs them, on embedded parts."""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroad.app.context import ready_engine, secret_keys
from postroad.embedded import stop_redis
from postroad.mail.token import Purpose, TokenSigner
from postroad.settings import Settings
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from tests.bounce import mails
from tests.commands import run_command
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch, touch_row

SETTINGS = """
[inbound]
smtp = "127.0.0.1:0"
domains = ["bounces.example.com"]

[bounce.sources.box]
kind = "maildir"
path = "box"
"""


class Site:
    """A folder with a postroad.toml, one touch that was accepted, and commands run in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "postroad.toml").write_text(SETTINGS)
        for name in ("new", "cur", "tmp"):
            (folder / "box" / name).mkdir(parents=True)
        self.environment = {**os.environ, "POSTROAD_CONFIG": str(folder / "postroad.toml"), "COLUMNS": "200"}
        settings = Settings.load(folder / "postroad.toml")
        self.engine = ready_engine(settings)
        with write(self.engine) as connection:
            campaign, (step,) = add_campaign(connection)
            ada = add_recipient(connection)
            self.touch = add_touch(connection, campaign, step, TouchState.ACCEPTED, recipient_id=ada, settled_at=NOW)
        token = TokenSigner(*secret_keys(settings)).sign(Purpose.BOUNCE, self.touch)
        self.return_path = f"bounce+{token}@bounces.example.com"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run_command(self.folder, self.environment, *words)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with self.log(words[0]).open("ab") as log:
            command = [sys.executable, "-m", "postroad", *words]
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stderr=log)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def bounced(self) -> bool:
        with read(self.engine) as connection:
            return touch_row(connection, self.touch).state is TouchState.BOUNCED


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.engine.dispose()
    stop_redis(tmp_path / ".postroad")


def _port(site: Site, process: subprocess.Popen[bytes]) -> int:
    until_s = time.monotonic() + 30
    while not (found := re.search(r"listens at 127\.0\.0\.1:(\d+)", site.log("inbound").read_text())):
        assert process.poll() is None, site.log("inbound").read_text()
        assert time.monotonic() < until_s
        time.sleep(0.05)
    return int(found[1])


def _judged(site: Site, worker: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + 30
    while not site.bounced():
        assert worker.poll() is None, site.log("worker").read_text()
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_a_bounce_that_is_delivered_bounces_its_touch(site: Site) -> None:
    inbound, worker = site.start("inbound"), site.start("worker", "bounce:process")
    try:
        with smtplib.SMTP("127.0.0.1", _port(site, inbound), timeout=20) as smtp:
            smtp.sendmail("", [site.return_path], mails.UNKNOWN)
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                smtp.sendmail("", ["ada@example.org"], mails.UNKNOWN)
        _judged(site, worker)
        inbound.send_signal(signal.SIGTERM)
        assert inbound.wait(20) == 0
        log = site.log("inbound").read_text()
        assert "inbound stopped: 1 mails taken" in log
        assert site.return_path.partition("@")[0] not in log
    finally:
        for process in (inbound, worker):
            process.kill()
            process.wait()


def test_a_bounce_in_a_maildir_bounces_its_touch(site: Site) -> None:
    (site.folder / "box" / "new" / "1.mx").write_bytes(mails.dsn(to=site.return_path))
    worker = site.start("worker", "bounce:process")
    try:
        done = site.run("bounce", "poll", "--json")
        assert json.loads(done.stdout) == [{"source": "box", "taken": 1, "known": 0, "unreadable": 0, "more": False}], (
            done.stderr
        )
        _judged(site, worker)
    finally:
        worker.kill()
        worker.wait()
    assert "box" in site.run("bounce", "poll", "box").stdout
    wrong = site.run("bounce", "poll", "bax")
    assert wrong.returncode == 7
    assert "no source named 'bax'" in wrong.stderr


def test_where_it_cannot_listen_it_says_so(site: Site) -> None:
    wrong = site.run("inbound", "--smtp", "everywhere")
    assert wrong.returncode == 3
    assert "--smtp" in wrong.stderr
    taken = site.run("inbound", "--smtp", "192.0.2.1:25")
    assert taken.returncode == 6
    assert "cannot listen at 192.0.2.1:25" in taken.stderr
