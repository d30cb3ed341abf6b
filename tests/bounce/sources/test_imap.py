"""Mail fetched from a real IMAP server, whatever happens between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.bounce.intake import Intake, IntakeResult
from postroad.bounce.mime import MAX_MESSAGE_BYTES
from postroad.bounce.report import Envelope
from postroad.bounce.sources.imap import TAKEN, ImapMailbox
from postroad.bounce.sources.poll import poll
from postroad.bounce.sources.source import PollResult
from postroad.clock import SystemClock
from postroad.errors import ConfigError, UnavailableError
from postroad.queue import Queue
from postroad.settings import SourceKind, SourceSettings, TlsMode
from postroad.store.engine import read
from tests.bounce import mails
from tests.bounce.sources.dovecot import PASSWORD, USER, Dovecot, dovecot
from tests.bounce.test_report_mail import LARGE_MAIL
from tests.smtp.conftest import Certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def running(certificates: Certificates) -> Iterator[Dovecot]:
    with dovecot(certificates) as instance:
        yield instance


@pytest.fixture
def server(running: Dovecot) -> Dovecot:
    """With an INBOX that is empty."""
    with running.client() as imap:
        if imap.select("INBOX")[1] != [b"0"]:
            imap.store("1:*", "+FLAGS", "(\\Deleted)")
            imap.expunge()
        imap.delete('"Taken in"')
    return running


def settings(server: Dovecot, **others: Any) -> SourceSettings:
    values = {
        "kind": SourceKind.IMAP,
        "host": "localhost",
        "port": server.tls_port,
        "ca_file": server.certificates.ca_file,
        "username": USER,
        "password": SecretStr(PASSWORD),
    }
    return SourceSettings.model_validate({**values, **others})


@pytest.fixture
def intake(engine: sa.Engine, bounces: Queue) -> Intake:
    return Intake(engine=engine, queue=bounces, clock=SystemClock())


def stored_mails(engine: sa.Engine) -> list[bytes]:
    with read(engine) as connection:
        return sorted(bytes(raw) for raw in connection.execute(sa.text("SELECT raw FROM bounce_mail")).scalars())


MAILS = [mails.UNKNOWN, mails.FULL, mails.VACATION, mails.mail("8 bits: ä\n")]


async def test_what_is_fetched_is_marked_and_not_fetched_again(
    server: Dovecot, intake: Intake, engine: sa.Engine, bounces: Queue
) -> None:
    server.put(*MAILS)
    polled = await poll("inbox", settings(server), intake.submit, page=3)
    assert polled == PollResult(source="inbox", taken=4)
    assert stored_mails(engine) == sorted(MAILS)
    assert (await bounces.stats()).queued == 4
    assert all(TAKEN in flags and "Seen" not in flags for flags in server.flags())
    server.put(mails.BLOCKED)
    assert await poll("inbox", settings(server), intake.submit) == PollResult(source="inbox", taken=1)


async def test_a_large_report_is_taken_in_whole_and_of_other_large_mail_the_beginning(
    server: Dovecot, intake: Intake, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server returns every line with CRLF.
    report = LARGE_MAIL.replace(b"\n", b"\r\n")
    photo = mails.mail("x" * 70 + "\n") + b"y" * MAX_MESSAGE_BYTES
    server.put(report, photo, mails.FULL)
    monkeypatch.setattr("postroad.bounce.sources.imap.MAX_PAGE_BYTES", MAX_MESSAGE_BYTES)  # A page ends with one.
    assert (await poll("inbox", settings(server), intake.submit)).taken == 3
    assert stored_mails(engine) == sorted([report, photo[:MAX_MESSAGE_BYTES], mails.FULL])


async def test_it_is_moved_or_deleted_where_that_is_asked_for(server: Dovecot, intake: Intake) -> None:
    server.put(*MAILS)
    server.make("Taken in")
    assert (await poll("inbox", settings(server, move_to="Taken in"), intake.submit)).taken == 4
    assert (len(server.flags()), len(server.flags("Taken in"))) == (0, 4)
    server.put(*MAILS)
    assert (await poll("inbox", settings(server, delete=True), intake.submit)).known == 4
    assert server.flags() == []


async def test_what_was_kept_and_not_put_aside_is_known_the_next_time(
    server: Dovecot, intake: Intake, engine: sa.Engine, bounces: Queue
) -> None:
    server.put(*MAILS)

    class Killed(BaseException):
        pass

    taken = 0

    async def submit(raw: bytes, envelope: Envelope) -> IntakeResult:
        nonlocal taken
        if taken == 2:
            raise UnavailableError("the queue went away")
        taken += 1
        return await intake.submit(raw, envelope)

    class Forgetful(ImapMailbox):
        """As if the process were killed before it could put anything aside."""

        def acknowledge(self, keys: Any) -> None:
            raise Killed

    with pytest.raises(Killed):
        await poll("inbox", settings(server), submit, open_=Forgetful)
    assert server.flags() == [""] * 4
    taken = 0
    with pytest.raises(UnavailableError):
        await poll("inbox", settings(server), submit)
    assert [TAKEN in flags for flags in server.flags()] == [True, True, False, False]
    assert await poll("inbox", settings(server), intake.submit) == PollResult(source="inbox", taken=2)
    assert stored_mails(engine) == sorted(MAILS)
    assert (await bounces.stats()).queued == 4


async def test_a_pass_ends_and_says_that_there_is_more(server: Dovecot, intake: Intake) -> None:
    server.put(*MAILS)
    assert await poll("inbox", settings(server), intake.submit, page=1, max_pages=3) == PollResult(
        source="inbox", taken=3, more=True
    )
    assert (await poll("inbox", settings(server), intake.submit)).taken == 1


@pytest.mark.parametrize("tls", [TlsMode.STARTTLS, TlsMode.NONE])
async def test_other_ways_in(server: Dovecot, intake: Intake, tls: TlsMode) -> None:
    server.put(mails.UNKNOWN)
    way = settings(server, tls=tls, port=server.port, clear_text_login=True)
    assert (await poll("inbox", way, intake.submit)).taken == 1


async def test_a_login_that_is_refused_says_so_without_the_password(server: Dovecot, intake: Intake) -> None:
    with pytest.raises(ConfigError, match="login was refused") as refused:
        await poll("inbox", settings(server, password=SecretStr("sesame")), intake.submit)
    assert "sesame" not in str(refused.value)
    with pytest.raises(ConfigError, match="there is no password"):
        await poll("inbox", settings(server, password=None), intake.submit)


async def test_a_mailbox_that_is_not_there_and_a_stranger_as_server_say_so(server: Dovecot, intake: Intake) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        await poll("inbox", settings(server, mailbox="Nowhere"), intake.submit)
    with pytest.raises(ConfigError, match="not trusted"):
        await poll("inbox", settings(server, ca_file=None), intake.submit)


async def test_a_server_that_hangs_or_is_gone_may_be_tried_again(server: Dovecot, intake: Intake) -> None:
    async def listen_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    hanging = await asyncio.start_server(listen_only, "127.0.0.1", 0)
    port = hanging.sockets[0].getsockname()[1]
    away = settings(server, tls=TlsMode.NONE, clear_text_login=True, host="127.0.0.1", port=port, timeout_ms=300)
    with pytest.raises(UnavailableError, match="timed out"):
        await poll("inbox", away, intake.submit)
    hanging.close()
    with pytest.raises(UnavailableError, match="refused"):
        await poll("inbox", away, intake.submit)


async def test_a_server_without_plain_is_logged_in_to_as_of_old(certificates: Certificates, intake: Intake) -> None:
    with dovecot(certificates, mechanisms="login") as instance:
        with pytest.raises(ConfigError, match="ASCII only"):
            await poll("inbox", settings(instance), intake.submit)
        with pytest.raises(ConfigError, match="ASCII only"):
            await poll("inbox", settings(instance, password=SecretStr("a\r\nb LOGOUT")), intake.submit)
        with pytest.raises(ConfigError, match="login was refused"):
            await poll("inbox", settings(instance, password=SecretStr("wrong")), intake.submit)
