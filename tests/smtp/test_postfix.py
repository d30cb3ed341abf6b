"""Sending to Postfix, an independent implementation: its smtp-sink, and a complete instance."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from postroad.settings import TlsMode
from postroad.smtp.errors import TransportError, UnsendableError
from postroad.smtp.pool import SessionPool
from postroad.smtp.reply import Phase
from postroad.smtp.session import SmtpSession
from tests.bounce.sources.dovecot import PASSWORD, USER, dovecot
from tests.smtp.conftest import QUICK, Certificates, Marks, message, nothing, route
from tests.smtp.postfix import Postfix, postfix, smtp_sink
from tests.smtp.scripted import ScriptedServer

pytestmark = pytest.mark.postfix

DOTTED = b"Subject: dots\r\n\r\n.\r\n..\r\n.QUIT\r\nx.\r\n\r\n.\r\n"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder with a short path, for Postfix's sockets, that Postfix's user can write to."""
    with tempfile.TemporaryDirectory(prefix="pf-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


async def test_a_sink_takes_a_thousand_messages_over_few_connections() -> None:
    with smtp_sink() as port:
        async with SessionPool(route(port, connections=4), QUICK) as pool:
            replies = await asyncio.gather(*(pool.send(message(), nothing) for _ in range(1000)))
    assert {(reply.phase, reply.code) for reply in replies} == {(Phase.DOT, 250)}


@pytest.mark.parametrize("options", [(), ("-p",)], ids=["pipelining", "none"])
async def test_what_a_sink_writes_down_is_what_was_sent(open_folder: Path, options: tuple[str, ...]) -> None:
    dump = open_folder / "dump"
    with smtp_sink(*options, "-D", str(dump)) as port:
        session = await SmtpSession.open(route(port), QUICK)
        assert session.pipelining is not bool(options)
        assert (await session.send(message(DOTTED), nothing)).code == 250
        assert (await session.send(message(), nothing)).code == 250
        await session.close()
    written = dump.read_bytes().replace(b"\r\n", b"\n")
    assert DOTTED.replace(b"\r\n", b"\n") in written
    assert b"Subject: hello\n\nbody\n" in written
    assert written.count(b"X-Mail-Args: <bounce@example.com>") == 2
    assert written.count(b"X-Rcpt-Args: <ada@example.org>") == 2


async def test_a_sink_without_8bitmime_gets_no_8bit() -> None:
    with smtp_sink("-8") as port:
        session = await SmtpSession.open(route(port), QUICK)
        with pytest.raises(UnsendableError):
            await session.send(message("Subject: x\r\n\r\ngrüß\r\n".encode()), nothing)
        assert (await session.send(message(), nothing)).code == 250
        await session.close()


@pytest.mark.parametrize(("option", "code"), [("-r", 450), ("-f", 500)])
@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT])
async def test_a_sink_that_refuses(phase: Phase, option: str, code: int) -> None:
    with smtp_sink(option, "." if phase is Phase.DOT else phase.upper()) as port:
        session = await SmtpSession.open(route(port), QUICK)
        for _ in range(3):
            reply = await session.send(message(), nothing)
            assert (reply.phase, reply.code) == (phase, code)
        assert session.usable
        await session.close()


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT])
async def test_a_sink_that_hangs_up(phase: Phase) -> None:
    with smtp_sink("-q", "." if phase is Phase.DOT else phase.upper()) as port:
        session = await SmtpSession.open(route(port), QUICK)
        marks = Marks()
        with pytest.raises(TransportError) as caught:
            await session.send(message(), marks)
        assert caught.value.unknown is (phase is Phase.DOT)
        assert marks.count == (1 if phase is Phase.DOT else 0)
        await session.close()


@pytest.fixture
async def next_hop() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(extensions=("8BITMIME",)) as server:
        yield server


@pytest.fixture
def instance(open_folder: Path, next_hop: ScriptedServer, certificates: Certificates) -> Iterator[Postfix]:
    with postfix(open_folder, next_hop.port, certificates) as started:
        yield started


async def arrived(server: ScriptedServer, count: int) -> list[bytes]:
    """Return the bodies at the next hop without the headers, to which Postfix adds."""
    async with asyncio.timeout(30):
        while len(server.bodies) < count:
            await asyncio.sleep(0.02)
    return [body.partition(b"\r\n\r\n")[2] for body in server.bodies]


async def test_a_whole_postfix(instance: Postfix, next_hop: ScriptedServer, certificates: Certificates) -> None:
    """One test for all cases, because starting Postfix takes seconds."""
    for tls in TlsMode:
        port = instance.implicit_tls_port if tls is TlsMode.IMPLICIT else instance.port
        session = await SmtpSession.open(route(port, tls=tls, ca_file=certificates.ca_file), QUICK)
        assert session.pipelining
        first = await session.send(message(DOTTED), nothing)
        assert (first.phase, first.code, first.enhanced) == (Phase.DOT, 250, "2.0.0")
        assert "queued as" in first.text

        missing = await session.send(message(recipient="nobody@example.org"), nothing)
        assert (missing.phase, missing.code, missing.enhanced) == (Phase.RCPT, 550, "5.1.1")
        later = await session.send(message(recipient="later@example.org"), nothing)
        assert (later.phase, later.code, later.enhanced) == (Phase.RCPT, 450, "4.2.0")
        too_big = await session.send(message(b"Subject: x\r\n\r\n" + b"y" * 70 + b"\r\n" * 100_000), nothing)
        assert (too_big.phase, too_big.code, too_big.enhanced) == (Phase.DOT, 552, "5.3.4")

        # The session bore all that, and is as good as new.
        assert (await session.send(message(), nothing)).code == 250
        leave = await session.send(message(recipient="leave@example.org"), nothing)
        assert (leave.phase, leave.code) == (Phase.RCPT, 421)
        assert not session.usable
        await session.close()

    session = await SmtpSession.open(route(instance.in_turn_port), QUICK)
    assert not session.pipelining
    for _ in range(2):
        assert (await session.send(message(recipient="nobody@example.org"), nothing)).code == 550
        assert (await session.send(message(DOTTED), nothing)).code == 250
        assert (await session.send(message(), nothing)).code == 250
    await session.close()

    rounds = len(TlsMode) + 2
    bodies = await arrived(next_hop, 2 * rounds)
    stuffed = b"..\r\n...\r\n..QUIT\r\nx.\r\n\r\n..\r\n.\r\n"
    assert sorted(bodies) == sorted([stuffed, b"body\r\n.\r\n"] * rounds)

    with pytest.raises(TransportError, match=r"(?i)certificate verify failed"):
        await SmtpSession.open(route(instance.port, tls=TlsMode.STARTTLS), QUICK)


MECHANISMS = ("plain", "login", "cram-md5")


async def test_login_at_a_whole_postfix(
    open_folder: Path, next_hop: ScriptedServer, certificates: Certificates
) -> None:
    """Dovecot authenticates, after STARTTLS, by each mechanism. A wrong password gives an error with a remedy."""
    with (
        dovecot(certificates, mechanisms=" ".join(MECHANISMS)) as judge,
        postfix(open_folder, next_hop.port, certificates, sasl=judge.sasl, mechanisms=MECHANISMS) as instance,
    ):
        for mechanism, port in instance.login_ports.items():
            place = partial(route, port, tls=TlsMode.STARTTLS, ca_file=certificates.ca_file)
            session = await SmtpSession.open(place(username=USER, password=PASSWORD), QUICK)
            assert (await session.send(message(), nothing)).code == 250, mechanism
            await session.close()

            stranger = await SmtpSession.open(place(), QUICK)
            assert (await stranger.send(message(), nothing)).code == 554, "who has not logged in may not relay"
            await stranger.close()

            with pytest.raises(TransportError) as caught:
                await SmtpSession.open(place(username=USER, password=f"{PASSWORD}?"), QUICK)
            error = caught.value
            assert (error.phase, error.reply and error.reply.code) == (Phase.AUTH, 535)
            assert error.reason.startswith(f"127.0.0.1:{port} refuses the login of {USER}: 535 5.7.8 ")
            assert error.reason.endswith("Correct the route's username or password: POSTROAD_ROUTES__NAME__PASSWORD")
            assert PASSWORD not in repr(error)
        await arrived(next_hop, len(MECHANISMS))
