"""The mailto of List-Unsubscribe, as a mail program uses it, by every way that mail comes back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.bounce.intake import Intake
from postroad.bounce.sources.addressees import Addressees
from postroad.bounce.sources.listener import listen
from postroad.bounce.sources.poll import poll
from postroad.clock import SystemClock
from postroad.delivery.job import job_id
from postroad.delivery.unsubscribe import unsubscribe
from postroad.mail.token import TokenSigner
from postroad.queue import Job, JobState, Queue
from postroad.settings import InboundSettings, SourceKind, SourceSettings
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from tests.bounce.house import DOMAIN, House
from tests.bounce.sources.dovecot import PASSWORD, USER, Dovecot, dovecot
from tests.bounce.sources.wire import connected
from tests.bounce.test_handler import SEND_LANE, handler, work_off
from tests.bounce.test_postfix import merged
from tests.smtp.conftest import Certificates
from tests.store.rows import NOW


@pytest.fixture
def house(engine: sa.Engine, signer: TokenSigner) -> House:
    return House(engine, signer)


@pytest.fixture(scope="module")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dovecot]:
    with dovecot(Certificates(tmp_path_factory.mktemp("certificates"))) as instance:
        yield instance


def unsubscribe_mail(house: House, touch: int) -> tuple[str, bytes]:
    """The address, and what a mail program sends to it: a person's mail, empty but for its header."""
    sent = message_from_bytes(merged(house, touch, "ada@example.org").content)
    [found] = re.findall(r"<(mailto:[^>]+)>", sent["List-Unsubscribe"])
    address = unquote(urlsplit(found).path)
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Ada <ada@example.org>", address, "unsubscribe"
    mail.set_content("")
    return address, mail.as_bytes().replace(b"\n", b"\r\n")


async def by_listener(house: House, intake: Intake, touch: int, lmtp: bool) -> None:
    address, raw = unsubscribe_mail(house, touch)
    settings = InboundSettings.model_validate(
        {"smtp": "" if lmtp else "127.0.0.1:0", "lmtp": "127.0.0.1:0" if lmtp else None}
    )
    addressees = Addressees(house.signer, domains=[DOMAIN])
    async with listen(
        settings, host_name="in.example.com", submit=intake.submit, addressees=addressees, clock=SystemClock()
    ) as listening:
        hello = "LHLO mx.example.org" if lmtp else "EHLO mx.example.org"
        async with connected(listening.places[0], hello) as wire:
            # People's servers give a return path, as bounces do not.
            assert (await wire.mail(address, raw, mail_from="ada@example.org")).startswith("250")


async def by_smtp(house: House, intake: Intake, touch: int, _: Path, __: Dovecot) -> None:
    await by_listener(house, intake, touch, lmtp=False)


async def by_lmtp(house: House, intake: Intake, touch: int, _: Path, __: Dovecot) -> None:
    await by_listener(house, intake, touch, lmtp=True)


async def by_maildir(house: House, intake: Intake, touch: int, folder: Path, _: Dovecot) -> None:
    for name in ("new", "cur", "tmp"):
        (folder / name).mkdir()
    (folder / "new" / "1.host").write_bytes(unsubscribe_mail(house, touch)[1])
    await poll("box", SourceSettings(kind=SourceKind.MAILDIR, path=folder), intake.submit)


async def by_imap(house: House, intake: Intake, touch: int, _: Path, mailbox: Dovecot) -> None:
    await asyncio.to_thread(mailbox.put, unsubscribe_mail(house, touch)[1])
    settings = SourceSettings(
        kind=SourceKind.IMAP,
        host="localhost",
        port=mailbox.tls_port,
        ca_file=mailbox.certificates.ca_file,
        username=USER,
        password=SecretStr(PASSWORD),
    )
    await poll("inbox", settings, intake.submit)


def what_holds(house: House, touch: int) -> list[tuple[object, ...]]:
    """The suppression, and what is noted at the touch, all but who brought it."""
    statement = (
        "SELECT suppression.reason, suppression.audience_id, delivery_event.cause, delivery_event.state FROM touch "
        "JOIN recipient ON recipient.id = touch.recipient_id "
        "JOIN suppression ON suppression.address = recipient.address "
        "JOIN delivery_event ON delivery_event.touch_id = touch.id WHERE touch.id = :id"
    )
    with read(house.engine) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement), {"id": touch})]


@pytest.mark.parametrize("way", [by_smtp, by_lmtp, by_maildir, by_imap])
async def test_a_mail_to_it_does_what_one_click_does(
    house: House, bounces: Queue, mail: Queue, mailbox: Dovecot, tmp_path: Path, way: object
) -> None:
    async def the_queue() -> Queue:
        return mail

    ada, bob = house.recipient(), house.recipient()
    touch, other = house.touch(ada), house.touch(bob)
    waits, bob_waits = house.touch(ada, TouchState.QUEUED), house.touch(bob, TouchState.QUEUED)
    await mail.enqueue(SEND_LANE, [Job(id=job_id(one), payload=b"") for one in (waits, bob_waits)])
    intake = Intake(engine=house.engine, queue=bounces, clock=SystemClock())
    (tmp_path / "box").mkdir()
    await way(house, intake, touch, tmp_path / "box", mailbox)  # type: ignore[operator]
    assert what_holds(house, touch) == []  # Nothing yet: it is judged by a worker.
    await work_off(bounces, handler(house, mail), 1)
    await unsubscribe(house.engine, the_queue, other, "one-click (RFC 8058)", NOW)
    assert what_holds(house, touch) == what_holds(house, other) == [("unsubscribe", 0, "unsubscribe", "accepted")]
    assert house.state(waits) is house.state(bob_waits) is TouchState.SUPPRESSED
    assert JobState.QUEUED not in await mail.known([job_id(waits), job_id(bob_waits)])


def test_the_scope_of_the_settings_holds_for_it_too(house: House) -> None:
    from postroad.bounce.effects import Rules, process
    from postroad.settings import UnsubscribeScope

    ada = house.recipient()
    touch, waits = house.touch(ada), house.touch(ada, TouchState.QUEUED)
    digest = house.keep(unsubscribe_mail(house, touch)[1])
    rules = Rules(signer=house.signer, settings=house.settings, scope=UnsubscribeScope.AUDIENCE)
    [processed] = process(house.engine, [digest], rules=rules, now=NOW)
    assert processed is not None
    assert (processed.ended, house.state(waits)) == ([], TouchState.QUEUED)
    [(_, audience, *_)] = what_holds(house, touch)
    assert audience != 0
