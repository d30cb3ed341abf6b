"""A bounce, and a mail to the List-Unsubscribe address, have the same effect through every source."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.bounce.intake import Intake
from postroad.bounce.sources.listener import listen
from postroad.bounce.sources.poll import poll
from postroad.bounce.sources.recipient_policy import RecipientPolicy
from postroad.clock import SystemClock
from postroad.delivery.job import job_id
from postroad.operations.unsubscribe import unsubscribe
from postroad.queue import Job, JobState, Queue
from postroad.settings import InboundSettings, SourceKind, SourceSettings
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from tests.bounce.ledger import DOMAIN, LedgerFixture
from tests.bounce.sources.dovecot import PASSWORD, USER, Dovecot, dovecot
from tests.bounce.sources.wire import connected
from tests.bounce.test_handler import SEND_LANE, handler, work_off
from tests.bounce.test_postfix import merged
from tests.smtp.conftest import Certificates
from tests.store.rows import NOW


@pytest.fixture(scope="module")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dovecot]:
    with dovecot(Certificates(tmp_path_factory.mktemp("certificates"))) as instance:
        yield instance


def unsubscribe_mail(ledger: LedgerFixture, touch: int) -> tuple[str, bytes]:
    """The address, and what a mail program sends to it: a person's mail, empty but for its header."""
    sent = message_from_bytes(merged(ledger, touch, "ada@example.org").content)
    [found] = re.findall(r"<(mailto:[^>]+)>", sent["List-Unsubscribe"])
    address = unquote(urlsplit(found).path)
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Ada <ada@example.org>", address, "unsubscribe"
    mail.set_content("")
    return address, mail.as_bytes().replace(b"\n", b"\r\n")


class Arrived(NamedTuple):
    """A mail on its way: its envelope, and its octets."""

    sender: str
    recipient: str
    raw: bytes


async def by_listener(ledger: LedgerFixture, intake: Intake, mail: Arrived, *, lmtp: bool) -> None:
    settings = InboundSettings.model_validate(
        {"smtp": "" if lmtp else "127.0.0.1:0", "lmtp": "127.0.0.1:0" if lmtp else None}
    )
    recipient_policy = RecipientPolicy(ledger.signer, domains=[DOMAIN])
    async with listen(
        settings,
        host_name="in.example.com",
        submit=intake.submit,
        recipient_policy=recipient_policy,
        clock=SystemClock(),
    ) as listening:
        hello = "LHLO mx.example.org" if lmtp else "EHLO mx.example.org"
        async with connected(listening.addresses[0], hello) as wire:
            assert (await wire.mail(mail.recipient, mail.raw, mail_from=mail.sender)).startswith("250")


async def by_smtp(ledger: LedgerFixture, intake: Intake, mail: Arrived, _: Path, __: Dovecot) -> None:
    await by_listener(ledger, intake, mail, lmtp=False)


async def by_lmtp(ledger: LedgerFixture, intake: Intake, mail: Arrived, _: Path, __: Dovecot) -> None:
    await by_listener(ledger, intake, mail, lmtp=True)


async def by_maildir(_: LedgerFixture, intake: Intake, mail: Arrived, folder: Path, __: Dovecot) -> None:
    for name in ("new", "cur", "tmp"):
        (folder / name).mkdir()
    (folder / "new" / "1.host").write_bytes(mail.raw)
    await poll("box", SourceSettings(kind=SourceKind.MAILDIR, path=folder), intake.submit)


async def by_imap(_: LedgerFixture, intake: Intake, mail: Arrived, __: Path, mailbox: Dovecot) -> None:
    await asyncio.to_thread(mailbox.put, mail.raw)
    settings = SourceSettings(
        kind=SourceKind.IMAP,
        host="localhost",
        port=mailbox.tls_port,
        ca_file=mailbox.certificates.ca_file,
        username=USER,
        password=SecretStr(PASSWORD),
    )
    await poll("inbox", settings, intake.submit)


Way = Callable[[LedgerFixture, Intake, Arrived, Path, Dovecot], Awaitable[None]]
WAYS: tuple[Way, ...] = (by_smtp, by_lmtp, by_maildir, by_imap)


@pytest.mark.parametrize("way", WAYS)
async def test_a_bounce_ends_its_touch_and_what_waits_whichever_way_it_comes(
    ledger: LedgerFixture, bounces: Queue, mail: Queue, mailbox: Dovecot, tmp_path: Path, way: Way
) -> None:
    ada = ledger.recipient()
    touch, waits = ledger.touch(ada), ledger.touch(ada, TouchState.QUEUED)
    await mail.enqueue(SEND_LANE, [Job(id=job_id(waits), payload=b"")])
    address = ledger.return_path(touch)
    bounce = Arrived("", address, ledger.dsn_of(touch).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    await way(ledger, Intake(engine=ledger.engine, queue=bounces, clock=SystemClock()), bounce, tmp_path, mailbox)
    assert ledger.state(touch) is TouchState.ACCEPTED  # Nothing yet: it is judged by a worker.
    await work_off(bounces, handler(ledger, bounces, mail), 1)
    assert (ledger.state(touch), ledger.state(waits)) == (TouchState.BOUNCED, TouchState.SUPPRESSED)
    assert await mail.states([job_id(waits)]) != [JobState.QUEUED]


def what_holds(ledger: LedgerFixture, touch: int) -> list[tuple[object, ...]]:
    """The suppression, and what is noted at the touch, all but who brought it."""
    statement = (
        "SELECT suppression.reason, suppression.audience_id, delivery_event.cause, delivery_event.state FROM touch "
        "JOIN recipient ON recipient.id = touch.recipient_id "
        "JOIN suppression ON suppression.address = recipient.address "
        "JOIN delivery_event ON delivery_event.touch_id = touch.id WHERE touch.id = :id"
    )
    with read(ledger.engine) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement), {"id": touch})]


@pytest.mark.parametrize("way", WAYS)
async def test_a_mail_to_it_does_what_one_click_does(
    ledger: LedgerFixture, bounces: Queue, mail: Queue, mailbox: Dovecot, tmp_path: Path, way: Way
) -> None:
    async def the_queue() -> Queue:
        return mail

    ada, bob = ledger.recipient(), ledger.recipient()
    touch, other = ledger.touch(ada), ledger.touch(bob)
    waits, bob_waits = ledger.touch(ada, TouchState.QUEUED), ledger.touch(bob, TouchState.QUEUED)
    await mail.enqueue(SEND_LANE, [Job(id=job_id(one), payload=b"") for one in (waits, bob_waits)])
    intake = Intake(engine=ledger.engine, queue=bounces, clock=SystemClock())
    # People's servers give a return path, as bounces do not.
    await way(ledger, intake, Arrived("ada@example.org", *unsubscribe_mail(ledger, touch)), tmp_path, mailbox)
    assert what_holds(ledger, touch) == []  # Nothing yet: it is judged by a worker.
    await work_off(bounces, handler(ledger, bounces, mail), 1)
    await unsubscribe(ledger.engine, the_queue, other, "one-click (RFC 8058)", NOW)
    assert what_holds(ledger, touch) == what_holds(ledger, other) == [("unsubscribe", 0, "unsubscribe", "accepted")]
    assert ledger.state(waits) is ledger.state(bob_waits) is TouchState.SUPPRESSED
    assert JobState.QUEUED not in await mail.states([job_id(waits), job_id(bob_waits)])


def test_the_scope_of_the_settings_holds_for_it_too(ledger: LedgerFixture) -> None:
    from postroad.bounce.mail_worker import parse_stored
    from postroad.bounce.process import BounceRules, process
    from postroad.settings import UnsubscribeScope

    ada = ledger.recipient()
    touch, waits = ledger.touch(ada), ledger.touch(ada, TouchState.QUEUED)
    digest = ledger.keep(unsubscribe_mail(ledger, touch)[1])
    rules = BounceRules(signer=ledger.signer, settings=ledger.settings, scope=UnsubscribeScope.AUDIENCE)
    [processed] = process(ledger.engine, [digest], rules=rules, read=parse_stored, now=NOW)
    assert processed is not None
    assert (processed.ended, ledger.state(waits)) == ([], TouchState.QUEUED)
    [(_, audience, *_)] = what_holds(ledger, touch)
    assert audience != 0
