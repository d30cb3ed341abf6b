"""Mail taken in as it arrives, from a real IMAP server, whatever becomes of the connection."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from postroad.bounce.intake import IntakeResult, digest_of
from postroad.bounce.report import Envelope
from postroad.bounce.sources.imap import ImapMailbox
from postroad.bounce.sources.poll import PAGE, open_source
from postroad.bounce.sources.source import MailSource, PollFailure, PollResult
from postroad.bounce.sources.watch import MISCONFIGURED, UNAVAILABLE, RetryDelays, watch
from postroad.clock import Clock, SystemClock
from postroad.errors import ConfigError, UnavailableError
from postroad.settings import SourceKind, SourceSettings
from tests.bounce import mails
from tests.bounce.sources.dovecot import Dovecot, dovecot
from tests.bounce.sources.test_imap import settings
from tests.smtp.conftest import Certificates

WITHIN_S = 20.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def running(certificates: Certificates) -> Iterator[Dovecot]:
    with dovecot(certificates) as instance:
        yield instance


@pytest.fixture
def server(running: Dovecot) -> Dovecot:
    with running.client() as imap:
        if imap.select("INBOX")[1] != [b"0"]:
            imap.store("1:*", "+FLAGS", "(\\Deleted)")
            imap.expunge()
    return running


class Watching:
    """What came in, and the connections that were made for it."""

    def __init__(self) -> None:
        self.raws: list[bytes] = []
        self.opened: list[MailSource] = []
        self.passes: list[PollResult] = []
        self.failures: list[PollFailure] = []
        self._news = asyncio.Event()

    async def submit(self, raw: bytes, envelope: Envelope) -> IntakeResult:
        self.raws.append(raw)
        self._news.set()
        return IntakeResult(digest=digest_of(raw, envelope), new=True)

    def seen(self, poll: PollResult | PollFailure) -> None:
        if isinstance(poll, PollResult):
            self.passes.append(poll)
        else:
            self.failures.append(poll)
        self._news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not true():
                self._news.clear()
                await self._news.wait()


class Relay:
    """A port that leads to another one, and whose connections can be cut."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._open: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, target_port: int) -> AsyncIterator[Relay]:
        relay = cls(target_port)
        async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as listening:
            relay.port = listening.sockets[0].getsockname()[1]
            yield relay
            relay.cut()

    def cut(self) -> None:
        for writer in self._open:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_target, to_target = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._open |= {writer, to_target}
        await asyncio.gather(self._carry(reader, to_target), self._carry(from_target, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while octets := await reader.read(65_536):
                writer.write(octets)
        writer.close()
        self._open.discard(writer)


class SteppedClock(SystemClock):
    """Records the requested delays. A sleep ends only when the test calls `turn`."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []
        self._turned = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.waited_s.append(seconds)
        await self._turned.wait()
        self._turned.clear()

    def turn(self) -> None:
        self._turned.set()


@asynccontextmanager
async def watching(
    of: SourceSettings, open_: Callable[[SourceSettings], MailSource] = open_source, clock: Clock | None = None
) -> AsyncIterator[Watching]:
    seen, stop = Watching(), asyncio.Event()

    def opened(settings: SourceSettings) -> MailSource:
        seen.opened.append(open_(settings))
        return seen.opened[-1]

    task = asyncio.create_task(
        watch("inbox", of, seen.submit, clock=clock or SystemClock(), stop=stop, open_=opened, on_poll=seen.seen)
    )
    try:
        yield seen
    finally:
        stop.set()
        await asyncio.wait_for(task, WITHIN_S)


async def test_what_arrives_is_taken_in_on_the_connection_that_is_there(server: Dovecot) -> None:
    server.put(mails.UNKNOWN)
    async with watching(settings(server)) as seen:
        await seen.until(lambda: len(seen.passes) == 1)
        assert seen.raws == [mails.UNKNOWN]
        for number, raw in enumerate((mails.FULL, mails.VACATION), start=2):
            await asyncio.to_thread(server.put, raw)
            await seen.until(lambda number=number: len(seen.raws) == number)  # type: ignore[misc]
        assert seen.raws == [mails.UNKNOWN, mails.FULL, mails.VACATION]
        assert len(seen.opened) == 1


async def test_a_connection_that_is_lost_is_made_again_and_nothing_is_missed(server: Dovecot) -> None:
    async with Relay.open(server.tls_port) as relay, watching(settings(server, port=relay.port)) as seen:
        await seen.until(lambda: len(seen.passes) == 1)
        relay.cut()
        await asyncio.to_thread(server.put, mails.FULL)
        await seen.until(lambda: seen.raws == [mails.FULL])
        assert len(seen.opened) == 2


async def test_a_server_without_idle_is_looked_at_again(server: Dovecot) -> None:
    class Silent(ImapMailbox):
        @property
        def idles(self) -> bool:
            return False

    async with watching(settings(server, look_ms=100), Silent) as seen:
        await seen.until(lambda: len(seen.passes) >= 1)
        await asyncio.to_thread(server.put, mails.FULL)
        await seen.until(lambda: seen.raws == [mails.FULL])
        assert len(seen.opened) >= 2


async def test_a_maildir_is_looked_at_again(tmp_path: Path) -> None:
    for name in ("new", "cur", "tmp"):
        (tmp_path / name).mkdir()
    of = SourceSettings(kind=SourceKind.MAILDIR, path=tmp_path, look_ms=100)
    async with watching(of) as seen:
        await seen.until(lambda: len(seen.passes) >= 1)
        (tmp_path / "new" / "1.mx").write_bytes(mails.FULL)
        await seen.until(lambda: seen.raws == [mails.FULL])


async def test_a_server_that_is_away_is_tried_again(server: Dovecot) -> None:
    tries = 0

    def away(of: SourceSettings) -> MailSource:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise UnavailableError("the server is away")
        return open_source(of)

    server.put(mails.FULL)
    async with watching(settings(server), away) as seen:
        await seen.until(lambda: seen.raws == [mails.FULL])


async def test_a_wrong_password_is_logged_and_retried_until_corrected(
    server: Dovecot, caplog: pytest.LogCaptureFixture
) -> None:
    clock, wrong = SteppedClock(), settings(server, password="sesame")

    def refused_thrice(of: SourceSettings) -> MailSource:
        return open_source(wrong if len(clock.waited_s) < 3 else of)

    server.put(mails.FULL)
    async with watching(settings(server), refused_thrice, clock) as seen:
        for failed in range(1, 4):
            await seen.until(lambda failed=failed: len(seen.failures) == failed)  # type: ignore[misc]
            clock.turn()
        await seen.until(lambda: seen.raws == [mails.FULL])
    assert clock.waited_s == [60, 120, 240]
    assert all(isinstance(failed.error, ConfigError) for failed in seen.failures)
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 3
    assert "source inbox: localhost, INBOX: the login was refused" in said[0].getMessage()
    assert "Correct username or password. again in 60 s" in said[0].getMessage().replace(";", "")
    assert "sesame" not in caplog.text


async def test_a_source_whose_server_talks_nonsense_is_tried_again_too(tmp_path: Path) -> None:
    clock = SteppedClock()

    def broken(_: SourceSettings) -> MailSource:
        raise ValueError("nobody thought of this")

    async with watching(SourceSettings(kind=SourceKind.MAILDIR, path=tmp_path), broken, clock) as seen:
        await seen.until(lambda: len(seen.failures) == 1)
    assert clock.waited_s == [60]


@pytest.mark.parametrize(("waits", "longest_s"), [(UNAVAILABLE, 60), (MISCONFIGURED, 900)])
def test_the_waits_grow_to_the_longest_and_no_further(waits: RetryDelays, longest_s: float) -> None:
    grown = [waits.after(failures) for failures in range(2_000)]
    assert grown[1] == 2 * grown[0]
    assert grown == sorted(grown)
    assert grown[-1] == longest_s


def test_idle_ends_at_its_timeout_and_when_stopped(server: Dovecot) -> None:
    box = ImapMailbox(settings(server))
    stop = threading.Event()
    try:
        assert box.idles
        assert not box.idle(stop, idle_s=0.1)
        stop.set()
        began_s = time.monotonic()
        assert not box.idle(stop)
        assert time.monotonic() - began_s < WITHIN_S
        box.search_again()
        assert box.fetch(10) == []
    finally:
        box.close()


def test_what_arrived_before_idle_began_is_news(server: Dovecot) -> None:
    server.put(mails.UNKNOWN)
    box = ImapMailbox(settings(server))
    try:
        [first] = box.fetch(10)
        server.put(mails.FULL)
        box.acknowledge([first.key])  # Its answer tells of the mail, and IDLE will not.
        assert box.idle(threading.Event(), idle_s=WITHIN_S)
        box.search_again()
        assert len(box.fetch(10)) == 1
    finally:
        box.close()


async def test_a_stop_ends_the_watch_after_the_current_page(tmp_path: Path) -> None:
    for name in ("new", "cur", "tmp"):
        (tmp_path / name).mkdir()
    for number in range(2 * PAGE):
        (tmp_path / "new" / f"1700000000.M{number:03}P1.mx").write_bytes(mails.FULL)
    seen, stop = Watching(), asyncio.Event()

    async def submit(raw: bytes, envelope: Envelope) -> IntakeResult:
        stop.set()
        return await seen.submit(raw, envelope)

    of = SourceSettings(kind=SourceKind.MAILDIR, path=tmp_path)
    await asyncio.wait_for(watch("inbox", of, submit, clock=SystemClock(), stop=stop), WITHIN_S)
    assert (len(seen.raws), len(list((tmp_path / "new").iterdir()))) == (PAGE, PAGE)
