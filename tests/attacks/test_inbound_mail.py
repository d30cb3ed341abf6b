"""Mail from strangers: it takes time and memory in proportion to its size, locks nothing, and holds up no other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroad.bounce.classify import BounceClass
from postroad.bounce.intake import LANE, Intake, ProcessBounce, encode_job
from postroad.bounce.mail_worker import parse_stored
from postroad.bounce.process import BounceRules, process
from postroad.bounce.readers import MailReader
from postroad.bounce.report import Envelope, MailKind, ParsedMail
from postroad.clock import SystemClock
from postroad.errors import UnavailableError
from postroad.mail.token import Purpose, TokenSigner
from postroad.queue import Job, Queue
from postroad.settings import BounceSettings
from postroad.store.engine import open_engine, read, write
from postroad.store.ledger import TouchState
from tests.attacks.hostile_reader import LIMITS as HOSTILE_LIMITS
from tests.bounce import mails
from tests.bounce.conftest import *  # noqa: F403 - its fixtures
from tests.bounce.ledger import DOMAIN, LedgerFixture
from tests.bounce.test_handler import handler, work_off
from tests.store.rows import NOW


@pytest.fixture(scope="module")
def reader() -> Iterator[MailReader]:
    with MailReader() as reader:
        yield reader


@pytest.fixture
def hostile_reader() -> Iterator[MailReader]:
    with MailReader("tests.attacks.hostile_reader", HOSTILE_LIMITS) as reader:
        yield reader


@pytest.mark.parametrize(
    ("order", "cause"),
    [
        ("please-spin", "it takes more than 0.3 s of processor time"),
        ("please-swallow", "the answer of its parser cannot be read"),
        ("please-allocate", "it takes more than 64 MiB of memory"),
        ("please-recurse", "it is nested too deeply"),
        ("please-exit", "the process that read it ended with 3"),
        ("please-die", "the process that read it ended with -9"),
        ("please-sleep", "it was not read within 5 s"),
        ("please-lie", "the answer of its parser cannot be read"),
    ],
)
def test_a_mail_that_breaks_its_parser_is_unreadable_and_the_next_is_read(
    hostile_reader: MailReader, order: str, cause: str
) -> None:
    report = hostile_reader(f"Subject: {order}\n\n".encode(), Envelope())
    assert (report.kind, report.format) == (MailKind.UNREADABLE, f"unreadable: {cause}")
    assert hostile_reader(mails.UNKNOWN, Envelope()).kind is MailKind.DSN


def test_the_child_has_no_secret_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROAD_SECRET_KEY", "hunter2")
    with MailReader() as reader:
        reader(mails.UNKNOWN, Envelope())
        (process,) = children_running("postroad.bounce.mail_worker")
        environment = Path(f"/proc/{process}/environ").read_bytes()
        assert b"PATH=" in environment
        assert b"hunter2" not in environment
    assert not Path(f"/proc/{process}").exists()


def children_running(module: str) -> list[int]:
    """Return the ids of the children of this process that run a module."""
    ids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    return [number for number in ids if is_child_running(number, module)]


def is_child_running(number: int, module: str) -> bool:
    try:
        command = Path(f"/proc/{number}/cmdline").read_bytes()
        parent = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return False
    return parent == os.getpid() and module.encode() in command.split(b"\0")


def test_closing_does_not_wait_for_a_mail(hostile_reader: MailReader, tmp_path: Path) -> None:
    hostile_reader(mails.UNKNOWN, Envelope())  # It has started.
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            hostile_reader(f"Subject: please-sleep at <{tmp_path / 'asleep'}>\n\n".encode(), Envelope())
        except UnavailableError as error:
            raised.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while not (tmp_path / "asleep").exists():
        time.sleep(0.01)
    hostile_reader.__exit__(None, None, None)
    asking.join(HOSTILE_LIMITS.wall_s / 2)
    assert not asking.is_alive()
    assert raised


def test_without_a_process_a_mail_waits_and_is_not_judged(
    ledger: LedgerFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/does/not/exist")
    with MailReader() as reader, pytest.raises(UnavailableError):
        replace(ledger, read=reader).process(mails.UNKNOWN)
    with read(ledger.engine) as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM bounce_mail WHERE processed_at IS NULL")).scalar() == 1


def test_while_a_mail_is_read_others_write(ledger: LedgerFixture) -> None:
    other = open_engine(ledger.engine.url.render_as_string(hide_password=False))
    written: list[int] = []

    def slow_read(raw: bytes, envelope: Envelope) -> ParsedMail:
        with write(other) as connection:  # It would wait 30 s for a lock that the reader held, and fail.
            written.append(connection.execute(sa.text("UPDATE recipient SET address = address")).rowcount)
        return parse_stored(raw, envelope)

    touch = ledger.touch(ledger.recipient())
    replace(ledger, read=slow_read).process(mails.dsn(to=ledger.return_path(touch)))
    other.dispose()
    assert written == [1]
    assert ledger.state(touch) is TouchState.BOUNCED


@pytest.mark.parametrize(
    "diagnostic",
    ["550 5.1.1 no =00 such user", "550 5.1.1 user unknown \0", "550 5.1.1 user unknown \udcff"],
)
@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable"])
def test_what_no_database_holds_does_not_save_a_mailbox_that_is_gone(
    ledger: LedgerFixture, diagnostic: str, encoding: str
) -> None:
    touch = ledger.touch(ledger.recipient())
    raw = mails.dsn(
        to=ledger.return_path(touch),
        recipient=ledger.address_of(touch),
        diagnostic=diagnostic.encode("utf-8", "surrogateescape").decode("latin-1"),
    )
    raw = raw.replace(
        b"Content-Type: message/delivery-status",
        f"Content-Type: message/delivery-status\nContent-Transfer-Encoding: {encoding}".encode(),
    )
    assert ledger.process(raw).verdict is BounceClass.HARD
    assert ledger.state(touch) is TouchState.BOUNCED


def test_lone_surrogates_of_utf_7_do_not_save_a_mailbox_that_is_gone(ledger: LedgerFixture) -> None:
    touch = ledger.touch(ledger.recipient())
    raw = (
        f"From: MAILER-DAEMON@example.org\nTo: {ledger.return_path(touch)}\nSubject: Undelivered mail\n"
        "Content-Type: text/plain; charset=utf-7\n\n"
        f"<{ledger.address_of(touch).replace('@', '+AEA-')}>: host said: 550 5.1.1 user unknown +2AA-\n"
    )
    assert ledger.process(raw.encode()).verdict is BounceClass.HARD
    with read(ledger.engine) as connection:
        statement = sa.text("SELECT reply FROM delivery_event WHERE touch_id = :id")
        assert "user unknown" in str(connection.execute(statement, {"id": touch}).scalar_one())


async def test_unreadable_mails_hold_up_no_other_and_end_as_dead_letters(
    ledger: LedgerFixture, bounces: Queue, mail: Queue, hostile_reader: MailReader
) -> None:
    intake = Intake(engine=ledger.engine, queue=bounces, clock=SystemClock())
    touches = [ledger.touch(ledger.recipient()) for _ in range(4)]
    bad = []
    for touch, order in zip(touches, ["please-spin", "please-exit", "please-allocate", "please-recurse"], strict=True):
        submitted = await intake.submit(f"Subject: {order}\n\n".encode(), Envelope(recipient=ledger.return_path(touch)))
        bad.append(submitted.digest)
        await intake.submit(mails.dsn(to=ledger.return_path(touch)), Envelope())
    await work_off(bounces, handler(replace(ledger, read=hostile_reader), bounces, mail), 8)
    assert {ledger.state(touch) for touch in touches} == {TouchState.BOUNCED}
    letters, _ = await bounces.dead_letters(count=10)
    assert sorted(letter.id for letter in letters) == sorted(bad)
    assert {letter.cause for letter in letters} == {"unreadable mail"}
    assert await intake.resume() == 0  # Not tried again by itself.


async def test_a_replayed_letter_is_read_again(ledger: LedgerFixture, bounces: Queue, mail: Queue) -> None:
    touch = ledger.touch(ledger.recipient())
    raw = mails.dsn(to=ledger.return_path(touch))
    broken = replace(
        ledger, read=lambda _, envelope: ParsedMail(kind=MailKind.UNREADABLE, format="unreadable: for a test")
    )
    assert broken.process(raw).verdict is BounceClass.UNREADABLE
    await bounces.enqueue(LANE, [Job(id="replayed", payload=encode_job(ProcessBounce(digest=ledger.keep(raw))))])
    await work_off(bounces, handler(ledger, bounces, mail), 1)
    assert ledger.state(touch) is TouchState.BOUNCED


def test_an_unreadable_mail_to_an_unsubscribe_address_unsubscribes(
    ledger: LedgerFixture, hostile_reader: MailReader
) -> None:
    touch = ledger.touch(ledger.recipient())
    envelope = Envelope(recipient=ledger.unsubscribe(touch))
    processed = replace(ledger, read=hostile_reader).process(b"Subject: please-exit\n\n", envelope)
    assert processed.verdict is BounceClass.UNSUBSCRIBE
    assert list(ledger.suppressed().values()) == ["unsubscribe"]


# -- structured mails, by chance

_NASTY = st.sampled_from(
    [
        *b'=00|+2AA-|=?utf-7?q?+2AA-?=|<@@>|(((|"|\\|550 5.1.1 user unknown|a@b.c|@|; charset=utf-7|9999'.split(b"|"),
        *(b"\0", b"\xff", b"\n ", b"\n\n", b"=\n", b"\xed\xa0\x80", b"\r"),
    ]
)

_TEXT = st.lists(_NASTY, max_size=12).map(b" ".join)

_TYPES = st.sampled_from(
    b"text/plain|text/plain; charset=utf-7|text/html; charset=utf-16|message/delivery-status|message/feedback-report|"
    b"message/rfc822|text/rfc822-headers|message/disposition-notification|application/zip|text/xml".split(b"|")
)

_FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            b"X-Failed-Recipients From To Subject Final-Recipient Action Status Date Diagnostic-Code Message-ID "
            b"References Feedback-Type Original-Rcpt-To Return-Path".split()
        ),
        _TEXT,
    ),
    max_size=8,
).map(lambda fields: b"".join(b"%b: %b\n" % field for field in fields))

_PART = st.builds(
    lambda kind, encoding, fields, text: (
        b"Content-Type: %b\nContent-Transfer-Encoding: %b\n\n%b%b\n" % (kind, encoding, fields, text)
    ),
    _TYPES,
    st.sampled_from([b"8bit", b"base64", b"quoted-printable"]),
    _FIELDS,
    _TEXT,
)

_MAIL = st.builds(
    lambda fields, parts: (
        fields
        + b"Content-Type: multipart/report; boundary=b\n\n"
        + b"".join(b"--b\n%b" % part for part in parts)
        + b"--b--\n"
    ),
    _FIELDS,
    st.lists(_PART, max_size=4),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(raws=st.lists(_MAIL, min_size=1, max_size=8, unique=True), text=st.text(max_size=40))
def test_whatever_comes_is_judged_and_kept(
    engine: sa.Engine, signer: TokenSigner, reader: MailReader, raws: list[bytes], text: str
) -> None:
    ledger = LedgerFixture(engine, signer)
    touch = ledger.touch(ledger.recipient())
    envelope = Envelope(recipient=ledger.return_path(touch), mail_from="")
    digests = [ledger.keep(raw, envelope) for raw in raws]
    rules = BounceRules(signer=signer, settings=BounceSettings())
    found = process(engine, digests, rules=rules, read=reader, now=NOW)
    assert all(one is not None and one.touch_id == touch for one in found)


async def test_a_mail_to_many_spellings_of_one_token_is_kept_once(ledger: LedgerFixture, bounces: Queue) -> None:
    intake = Intake(engine=ledger.engine, queue=bounces, clock=SystemClock())
    token, other = (ledger.signer.sign(Purpose.REPLY, touch) for touch in (1, 2))
    spellings = [f"p{number}+{token}@{DOMAIN}" for number in range(20)]
    spellings += [f"P+{token.upper()}@{DOMAIN}", f"p+{token}@another.example"]
    for recipient in (*spellings, f"p+{other}@{DOMAIN}", ledger.return_path(1), ledger.unsubscribe(1)):
        await intake.submit(b"From: ada@example.org\r\n\r\nhello", Envelope(mail_from="", recipient=recipient))
    with read(ledger.engine) as connection:
        rows = connection.execute(sa.text("SELECT count(*) FROM bounce_mail")).scalar_one()
    assert rows == 4  # One for each token and purpose.
