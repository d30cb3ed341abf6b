"""No command crashes on data that is hostile to a terminal, acts on it, hides or cuts it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from postroad.app.context import open_context
from postroad.cli.rehearse import print_report
from postroad.rehearsal.holds import Hold
from postroad.rehearsal.report import PausedList, RehearsalReport, RehearsalRun, RehearsedStep, ReplyAccount
from postroad.rehearsal.warmup import OverflowAccount, WarmupDayAccount
from postroad.settings import Settings
from postroad.store.engine import write
from tests.cli.enumerate import commands
from tests.cli.hostile import BAD, TOUCH, bad, fill, fill_queue, hidden_in, shown, without_styles
from tests.cli.site import Site, a_site
from tests.commands import Screen
from tests.dns.nameserver import Nameserver
from tests.docs.pages import ROOT

EXIT_CODES = range(8)
SPRING = bad("campaign.name")
GATE = bad("gate")
DSN = (
    "From: MAILER-DAEMON@mx.example.org\nTo: <ada@example.com>\nSubject: failure\nMIME-Version: 1.0\n"
    "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\nContent-Type: text/plain\n\nno\n"
    "--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx\n\n"
    "Final-Recipient: rfc822; [/red]x@example.org\nAction: failed\nStatus: 5.1.1\n"
    "Diagnostic-Code: smtp; 550 5.1.1 [/policy] \x1b[2J\n\n--b--\n"
)


class Call(NamedTuple):
    """One call of a command, and the places whose text it shows."""

    words: Sequence[str]
    shows: Sequence[str] = ()


OF_HOSTILE = ("--queue", "hostile")
EXPLAINED = (
    *("recipient.address", "campaign.name", "step.name", "touch.reply"),
    *("delivery_event.reply", "delivery_event.cause", "bounce_mail.rule", "overflow.why"),
    *("message_request.key", "message_request.requested_by"),
)
CALLS: dict[str, Call] = {
    # These read.
    "campaign status": Call((), ("campaign.name", "step.name")),
    "campaign forecast": Call((SPRING, "--what-if", f"sender.{BAD}.rate=1/1s")),
    "campaign approvals": Call((), tuple(f"approval.{it}" for it in ("requested_by", "decided_by", "reason"))),
    "campaign preview": Call(("spring",), ("first_name",)),
    "audience list": Call((), ("audience.name",)),
    "audience refusals": Call(
        (bad("audience.name"),), ("audience.name", "refusal.field", "refusal.value", "refusal.reason")
    ),
    "segment count": Call(("--audience", "people", "--where", "first_name is null")),
    "segment show": Call(("--audience", bad("audience.name"))),
    "segment explain": Call(
        ("bob@example.org", "--audience", "people", "--where", "first_name is not null"), ("first_name",)
    ),
    "permission record": Call(("bob@example.org", "people", "--from", BAD, "--wording", BAD, "--confirmation", BAD)),
    "permission prove": Call(
        ("bob@example.org",),
        ("consent.source", "consent.ip", "consent.wording", "consent.confirmation", "consent.recorded_by"),
    ),
    "event list": Call(("bob@example.org",), ("recipient_event.name", "recipient_event.key")),
    "suppression list": Call((), ("suppression.address", "suppression.source")),
    "suppression export": Call(("suppressed.csv",)),
    "unknown list": Call((), ("recipient.address", "campaign.name", "touch.reply")),
    "shaping show": Call((), ("shaping_change.rule", "shaping_change.reply")),
    "shaping log": Call((), ("shaping_change.rule", "shaping_change.reply", "shaping_change.restored_by")),
    "bounce explain": Call(("mails",)),
    "bounce classify": Call((f"550 5.1.1 {bad('reply')}",), ("reply",)),
    "bounce status": Call((), ()),
    "cohort list": Call(
        ("--lifted",), tuple(f"cohort_pause.{it}" for it in ("source", "provider", "reason", "lifted_by", "lifted_why"))
    ),
    "cohort status": Call((SPRING,), ("campaign.name",)),
    "warmup plan": Call(()),
    "warmup simulate": Call(()),
    "warmup status": Call((), ("warmup_day.reason", "warmup_override.by", "warmup_override.why")),
    "warmup overflow": Call((SPRING,), ("overflow.why",)),
    "processes": Call((), ("process",)),
    "queue job": Call((str(TOUCH),), ("delivery_event.reply", "delivery_event.cause")),
    "queue explain": Call(("73", *OF_HOSTILE), ("gate",)),
    "queue stats": Call(OF_HOSTILE),
    "explain": Call((str(TOUCH),), EXPLAINED),
    "campaign delays": Call((SPRING,), ("campaign.name",)),
    "campaign variants": Call((SPRING,), ("campaign.name",)),
    "queue dead": Call((), ("cause", "error")),
    "queue gate list": Call((), ("gate",)),
    "queue uncertain list": Call(OF_HOSTILE, ("lane", "worker")),
    "webhook list": Call((), ("webhook_endpoint.disabled_for",)),
    "webhook log": Call((), ("webhook_attempt.type", "webhook_attempt.outcome", "webhook_attempt.error")),
    "dkim record": Call(("ada",)),
    "api-key list": Call((), ("api_key.name", "api_key.prefix")),
    "dns reports": Call((), ("dmarc_report_row.header_from", "tls_report_row.result")),
    "dns senders": Call((), ("sender_hold.reason",)),
    "audit list": Call((), ("audit_record.actor", "audit_record.target", "audit_record.note", "audit_record.origin")),
    "console user list": Call((), ("console_user.name",)),
    "db status": Call(()),
    "backup create": Call(("[red]backup\x1b[2J.tar",)),
    "backup verify": Call(("[red]backup\x1b[2J.tar",)),
    "doctor": Call(()),
    "sandbox": Call(("--replies",)),
    # These are given it, or change things.
    "campaign apply": Call(("[red]bad\x1b[2J.yaml",)),
    "campaign launch": Call((SPRING, "--dry-run"), ("campaign.name",)),
    "campaign proof": Call((SPRING, "--to", "me@example.org"), ("audience.name",)),
    "campaign approve": Call((SPRING, "--by", BAD)),
    "campaign refuse": Call((SPRING, "--by", BAD, "--reason", BAD)),
    "campaign pause": Call((SPRING,), ("campaign.name",)),
    "campaign resume": Call((SPRING,), ("campaign.name",)),
    "campaign recall": Call((SPRING, "--yes"), ("campaign.name",)),
    "campaign widen": Call((SPRING, "--yes", "--by", BAD)),
    "campaign close": Call((SPRING,), ("campaign.name",)),
    "campaign cancel": Call((SPRING, "--yes"), ("campaign.name",)),
    "audience import": Call(("people", "bad.csv")),
    "audience abandon": Call((bad("audience.name"),)),
    "event record": Call(("bob@example.org", BAD, "--field", BAD, "--key", BAD)),
    "event import": Call(("bad.csv", "--event", "paid")),
    "suppression add": Call((BAD,)),
    "suppression import": Call(("bad.csv",)),
    "suppression lift": Call((BAD, "--reason", "x")),
    "unknown resolve": Call((BAD, "--as", "dead")),
    "bounce process": Call(("mails",)),
    "bounce poll": Call((BAD,)),
    "cohort resume": Call(("2", "--reason", BAD, "--by", BAD), ("cohort_pause.provider",)),
    "warmup override": Call(("ada", "google", "--cap", "5", "--why", BAD, "--by", BAD)),
    "warmup schedule": Call(()),
    "warmup import postmaster": Call(("bad.csv", "--domain", "example.com")),
    "warmup import snds": Call(("bad.csv",)),
    "queue gate set": Call((GATE, "--rate", "1/1s", *OF_HOSTILE), ("gate",)),
    "queue gate suspend": Call((GATE, *OF_HOSTILE), ("gate",)),
    "queue gate resume": Call((GATE, *OF_HOSTILE), ("gate",)),
    "queue uncertain resolve": Call(("72", "dead", "--by", bad("by"), *OF_HOSTILE), ("by",)),
    "queue reschedule": Call(("73", "--to", BAD, *OF_HOSTILE)),
    "queue replay": Call(("--cause", bad("cause"), *OF_HOSTILE)),
    "queue drop": Call(("--all", "--by", bad("by"), *OF_HOSTILE), ("by",)),
    "queue cancel": Call(("73", *OF_HOSTILE)),
    "queue rebuild": Call(()),
    "api-key create": Call((BAD, "--scope", "view", "--expires", BAD)),
    "api-key revoke": Call((bad("api_key.name"),), ("api_key.name",)),
    "webhook send-test": Call(("shop",)),
    "webhook redeliver": Call(("shop", BAD)),
    "webhook replay": Call(("shop", "--since", BAD)),
    "webhook enable": Call(("shop",)),
    "webhook disable": Call(("shop", "--why", BAD)),
    "webhook secret": Call(()),
    "events export": Call(("--since", "1d", "--to", "[red]events\x1b[2J.ndjson")),
    "init": Call(("[red]mail\x1b[2J",)),
    "dkim keygen": Call(("--domain", "example.com", "--selector", "s", "--out", "[red]key.pem")),
    "console link": Call(("--name", BAD)),
    "console user add": Call((BAD,)),
    "console user remove": Call((BAD,)),
    "dns canary": Call((BAD,)),
    "dns read-reports": Call(("bad.csv",)),
    "db upgrade": Call(()),
}
ELSEWHERE = {
    "dns check": "test_records_of_dns_are_shown_literally",
    "rehearse": "test_a_rehearsal_shows_replies_literally",
    "worker": "its log: test_output.py",
    "recorder": "its log: test_output.py",
    "inbound": "its log: test_output.py",
    "web": "its log: test_output.py",
    "bounce watch": "its log: test_output.py",
    "up": "shows names that were validated",
    "advance": "shows names that were validated",
    "demo": "shows names that were validated",
    "down": "shows no data",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("site")) as site:
        site.environment |= {"COLUMNS": "5000", "TERM": "xterm"}
        (site.folder / "bad.csv").write_text(f'address,first_name\n"{bad("csv")}",x\n', encoding="utf-8")
        (site.folder / "mails").mkdir()
        (site.folder / "mails" / "[red]mail\x1b[2J.eml").write_text(DSN)
        asyncio.run(_fill(site.folder))
        yield site


async def _fill(folder: Path) -> None:
    with chdir(folder):
        settings = Settings.load()
    async with open_context(settings) as context:
        with write(context.engine) as connection:
            fill(connection)
        await fill_queue(context)


def test_every_command_is_tried_here_or_elsewhere() -> None:
    assert commands().keys() == CALLS.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("name", CALLS)
def test_data_is_shown_complete_and_literally(name: str, site: Site) -> None:
    words = (*name.split(), *CALLS[name].words)
    places = [shown(place) for place in CALLS[name].shows]
    if name == "campaign preview":  # In the message itself a carriage return is a line break.
        places = [place.replace(r"\r", "\n") for place in places]
    for arguments, terminal in ((words, False), (words, True), ((*words, "--json"), False)):
        done = site.run(*arguments, terminal=terminal)
        assert done.returncode in EXIT_CODES
        assert done.stdout + done.stderr
        seen = without_styles(done.stdout + done.stderr) if terminal else done.stdout + done.stderr
        assert not hidden_in(seen), name
        if arguments is words and done.returncode == 0:
            for expected in places:
                assert expected in seen, expected
        if "--json" in arguments:
            for line in (done.stdout or done.stderr).splitlines():
                json.loads(line)
        if not terminal and arguments is words and CALLS[name].shows:
            assert any(expected in seen for expected in places)


def test_an_export_is_unchanged_in_a_pipe_and_safe_on_a_terminal(site: Site) -> None:
    piped, screen = site.run("suppression", "export"), site.run("suppression", "export", terminal=True)
    assert bad("suppression.source").replace("\r", "\n") in piped.stdout.replace("\r", "\n")
    assert shown("suppression.source") in screen.stdout
    assert not hidden_in(screen.stdout)


async def test_records_of_dns_are_shown_literally(site: Site) -> None:
    record = r'"v=spf1 [/red]:apple:\027[2J \226\128\174 -all"'
    async with Nameserver({"example.org": {"TXT": [record], "A": ["192.0.2.1"]}}) as nameserver:
        at = f"127.0.0.1:{nameserver.port}"
        words = ("dns", "check", "example.org", "--resolver", at, "--no-blocklists")
        for more, terminal in (((), False), ((), True), (("--markdown",), False), (("--json",), False)):
            done = await asyncio.to_thread(partial(site.run, *words, *more, terminal=terminal))
            assert done.returncode in EXIT_CODES
            seen = without_styles(done.stdout + done.stderr) if terminal else done.stdout + done.stderr
            assert not hidden_in(seen)
            assert "apple" in seen
            assert more or ("[/red]" in seen and ":apple:" in seen)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_rehearsal_shows_replies_literally(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "5000")
    out = Screen(terminal=terminal)
    with redirect_stdout(out), redirect_stderr(out):
        print_report(_report())
    seen = without_styles(out.text())
    assert not hidden_in(seen)
    for place in ("campaign", "reply", "gate", "why", "source", "reason", "identity", "sender", "overflow"):
        assert shown(place) in seen


def _report() -> RehearsalReport:
    run = RehearsalRun(real_seconds=1, speed_asked=1, speed_mean=1, speed_slowest=1, lag_seconds=0, kept_up=False)
    said = ReplyAccount(
        persona="gmail",
        outcome="bounced",
        code=550,
        enhanced=None,
        cause=bad("reply"),
        times=1,
        recipients=1,
        reply=None,
    )
    paused = PausedList(
        step="hello", source=bad("source"), provider="google", at=datetime.now(UTC), reason=bad("reason"), waiting=1
    )
    return RehearsalReport(
        campaign=bad("campaign"),
        finished=False,
        ended="held for good",
        launched_at=datetime.now(UTC),
        finished_at=None,
        seconds=None,
        audience=1,
        steps=(RehearsedStep(name="hello", touches=1, counts={}),),
        personas=(),
        said=(said,),
        holds=(Hold(gate=bad("gate"), why=bad("why"), seconds=1.0),),
        paused=(paused,),
        warmup=(
            WarmupDayAccount(identity=bad("identity"), provider="google", day=datetime.now(UTC).date(), cap=5, sent=1),
        ),
        overflow=(OverflowAccount(sender=bad("sender"), touches=1, why=bad("overflow")),),
        slots_full_seconds=0,
        captured=0,
        duplicates=0,
        complete=False,
        run=run,
    )


def test_the_page_about_rehearsals_shows_the_tables_that_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers are of one run. Titles and columns are those of every run."""
    monkeypatch.setenv("COLUMNS", "5000")
    out = Screen(terminal=True)
    with redirect_stdout(out), redirect_stderr(out):
        print_report(_report())
    page = (ROOT / "docs/how-to/rehearse-a-campaign.md").read_text(encoding="utf-8")
    printed = _tables(without_styles(out.text()))
    written = _tables(page)
    assert written
    # Of the steps there are columns for the states that occur; lists are not always paused.
    assert all(printed[title] == columns for title, columns in written.items() if not title.startswith("audience"))


def _tables(text: str) -> dict[str, list[str]]:
    """Return the columns of each table by its title."""
    lines = [line.strip() for line in text.splitlines()]
    return {
        lines[number - 1]: [column.strip() for column in lines[number + 1].strip("┃").split("┃")]
        for number, line in enumerate(lines)
        if line.startswith("┏")
    }
