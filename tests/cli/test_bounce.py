"""postroad bounce and postroad worker bounce:process, as a person runs them, on embedded parts."""

from __future__ import annotations

import json
import os
import signal
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
from tests.dns.reports import RECORD, XML
from tests.dns.reports import mail as mail_with
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch, touch_row

SETTINGS = 'public_url = "https://mail.example.com"\n'


class Site:
    """A folder with a postroad.toml, and commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "postroad.toml").write_text(SETTINGS)
        self.environment = {**os.environ, "POSTROAD_CONFIG": str(folder / "postroad.toml"), "COLUMNS": "200"}
        self.settings = Settings.load(folder / "postroad.toml")

    def run(self, *words: str) -> str:
        done = run_command(self.folder, self.environment, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "postroad", *words]
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stderr=log)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path)
    stop_redis(tmp_path / ".postroad")


def test_explain_prints_one_object_for_each_mail_and_makes_nothing(site: Site) -> None:
    inbox = site.folder / "inbox"
    inbox.mkdir()
    (inbox / "1.eml").write_bytes(mails.UNKNOWN)
    (inbox / "2.eml").write_bytes(mails.VACATION)
    lines = [json.loads(line) for line in site.run("bounce", "explain", "inbox", "--json").splitlines()]
    assert lines == [
        {
            "file": "1.eml",
            "kind": "dsn",
            "recipients": [
                {
                    "address": "ada@example.org",
                    "status": "5.1.1",
                    "reply_code": 550,
                    "verdict": "hard",
                    "rule": "no such mailbox: words: {recipient} unknown",
                }
            ],
            "touch": None,
        },
        {
            "file": "2.eml",
            "kind": "auto-reply",
            "recipients": [
                {
                    "address": "ada@example.org",
                    "status": None,
                    "reply_code": None,
                    "verdict": "auto-reply",
                    "rule": "RFC 3834",
                }
            ],
            "touch": None,
        },
    ]
    assert "no such mailbox" in site.run("bounce", "explain", "inbox/1.eml")
    assert not site.settings.state_dir.exists()


@pytest.mark.parametrize("text", ["hello", "250 OK", "250-Fine\\n250 OK", "220 mx.example.org ESMTP"])
def test_classify_refuses_what_is_no_reply_of_a_failure(site: Site, text: str) -> None:
    done = run_command(site.folder, site.environment, "bounce", "classify", text)
    assert (done.returncode, done.stdout) == (2, "")
    assert "not a reply of a failure" in done.stderr


@pytest.mark.parametrize("text", ["5.1.1", "User unknown", "smtp; 550 5.1.1 User unknown"])
def test_classify_takes_a_failure_without_a_reply_code(site: Site, text: str) -> None:
    assert json.loads(site.run("bounce", "classify", text, "--json"))["suppresses"]


def test_explain_names_what_of_attached_reports_cannot_be_read(site: Site) -> None:
    bad = XML.replace(RECORD, RECORD + RECORD.replace("198.51.100.7", "me"))
    context = [("application/zip", "logo.zip", b"PK\x03\x04"), ("application/xml", "r.xml", bad.encode())]
    (site.folder / "1.eml").write_bytes(mail_with(*context))
    explained = json.loads(site.run("bounce", "explain", "1.eml", "--json"))
    assert explained["kind"] == "reports"
    assert [one["rule"] for one in explained["recipients"]] == ["DMARC report"]
    [report] = explained["reports"]
    assert (report["organisation"], report["domain"], report["rows"]) == ("mail.test", "acme.dev", 1)
    assert report["problems"] == ["record 2: source_ip 'me' is not an address"]
    assert explained["not_read"] == ["logo.zip: its zip is broken: BadZipFile: File is not a zip file"]
    shown = site.run("bounce", "explain", "1.eml")
    assert "report of mail.test on acme.dev, 1 row" in shown
    assert "not read: record 2" in shown
    assert "not read: logo.zip" in shown


def test_what_is_handed_in_is_judged_by_a_worker_and_counted(site: Site) -> None:
    engine = ready_engine(site.settings)
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        ada = add_recipient(connection, "ada@example.org")
        touch = add_touch(connection, campaign, step, TouchState.ACCEPTED, recipient_id=ada, settled_at=NOW)
    token = TokenSigner(*secret_keys(site.settings)).sign(Purpose.BOUNCE, touch)
    (site.folder / "box").write_bytes(
        b"From MAILER-DAEMON Mon May  4 08:30:00 2026\n"
        + mails.dsn(to=f"bounce+{token}@bounces.example.com")
        + b"\nFrom MAILER-DAEMON Mon May  4 08:31:00 2026\n"
        + mails.NEWSLETTER
    )
    explained = [json.loads(line) for line in site.run("bounce", "explain", "box", "--json").splitlines()]
    assert [(one["file"], one["touch"]) for one in explained] == [("box", touch), ("box", None)]
    assert json.loads(site.run("bounce", "process", "box", "--json")) == {"submitted": 2, "known": 0}
    assert json.loads(site.run("bounce", "process", "box", "--json")) == {"submitted": 0, "known": 2}

    worker = site.start("worker", "bounce:process")
    deadline_s = time.monotonic() + 90
    while len(counts := json.loads(site.run("bounce", "status", "--json"))) < 2:
        assert worker.poll() is None, (site.folder / "log").read_text()
        assert time.monotonic() < deadline_s
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert [(one["verdict"], one["sender"], one["count"]) for one in counts] == [
        ("hard", "news@example.com", 1),
        ("unrelated", None, 1),
    ]
    with read(engine) as connection:
        assert touch_row(connection, touch).state is TouchState.BOUNCED
    engine.dispose()
    assert json.loads(site.run("suppression", "list", "--json"))[0]["reason"] == "hard_bounce"
