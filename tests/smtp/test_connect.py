"""Opening a session: implicit TLS, STARTTLS, certificates and login."""

from __future__ import annotations

import asyncio
import logging
import traceback
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest

from postroad.settings import TlsMode
from postroad.smtp.errors import TransportError
from postroad.smtp.reply import Phase
from postroad.smtp.session import SmtpSession
from tests.smtp.conftest import QUICK, Certificates, message, nothing, route
from tests.smtp.scripted import EXTENSIONS, Act, Answer, Connection, ScriptedServer

PASSWORD = "pärple-monkey-dishwasher"


def server_of(tls: TlsMode, certificates: Certificates) -> ScriptedServer:
    match tls:
        case TlsMode.IMPLICIT:
            return ScriptedServer(implicit_tls=certificates.server_context())
        case TlsMode.STARTTLS | TlsMode.OPPORTUNISTIC:
            return ScriptedServer(starttls=certificates.server_context())
        case TlsMode.NONE:
            return ScriptedServer()


@pytest.mark.parametrize("tls", list(TlsMode))
async def test_mail_flows_pipelined_by_every_mode(tls: TlsMode, certificates: Certificates) -> None:
    async with server_of(tls, certificates) as server:
        session = await SmtpSession.open(route(server.port, tls=tls, ca_file=certificates.ca_file), QUICK)
        assert session.pipelining
        for _ in range(3):
            assert (await session.send(message(), nothing)).code == 250
        secured = server.connections[0].writer.get_extra_info("ssl_object") is not None
        assert secured is (tls is not TlsMode.NONE)
        await session.close()
        # RFC 3207 §4.2: after STARTTLS the client must send EHLO again.
        verbs = [command.split()[0] for command in server.commands]
        assert verbs.count(b"EHLO") == (2 if tls in (TlsMode.STARTTLS, TlsMode.OPPORTUNISTIC) else 1)
        assert verbs[-1] == b"QUIT"


async def test_starttls_that_is_not_offered_is_not_done_without() -> None:
    async with ScriptedServer() as server:
        with pytest.raises(TransportError, match="STARTTLS") as caught:
            await SmtpSession.open(route(server.port, tls=TlsMode.STARTTLS, username="ada", password=PASSWORD), QUICK)
        assert caught.value.phase is Phase.TLS
        assert not any(command.startswith(b"AUTH") for command in server.commands)


async def test_starttls_that_is_refused_has_its_reply(certificates: Certificates) -> None:
    server = ScriptedServer({"STARTTLS": "454 4.7.0 TLS is not to be had"}, extensions=(*EXTENSIONS, "STARTTLS"))
    async with server:
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(route(server.port, tls=TlsMode.STARTTLS, ca_file=certificates.ca_file), QUICK)
        assert caught.value.phase is Phase.TLS
        assert str(caught.value.reply) == "454 4.7.0 TLS is not to be had"


async def test_starttls_answered_in_plain_text_is_a_transport_error(certificates: Certificates) -> None:
    async def go_on_in_plain_text(connection: Connection) -> None:
        connection.say("220 2.0.0 go ahead")
        await connection.until(b"\x16\x03")  # how a handshake begins
        connection.say("500 5.5.2 what?")

    server = ScriptedServer({"STARTTLS": go_on_in_plain_text}, extensions=(*EXTENSIONS, "STARTTLS"))
    async with server:
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(route(server.port, tls=TlsMode.STARTTLS, ca_file=certificates.ca_file), QUICK)
        assert caught.value.phase is Phase.TLS


async def test_implicit_tls_without_tls_server_is_a_transport_error(certificates: Certificates) -> None:
    async with ScriptedServer() as server:
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(route(server.port, tls=TlsMode.IMPLICIT, ca_file=certificates.ca_file), QUICK)
        assert caught.value.phase is Phase.CONNECT


@pytest.mark.parametrize(("tls", "phase"), [(TlsMode.IMPLICIT, Phase.CONNECT), (TlsMode.STARTTLS, Phase.TLS)])
async def test_a_certificate_of_an_unknown_authority_is_refused(
    tls: TlsMode, phase: Phase, certificates: Certificates
) -> None:
    async with server_of(tls, certificates) as server:
        settings = route(server.port, tls=tls, username="ada", password=PASSWORD)
        with pytest.raises(TransportError, match=r"(?i)certificate verify failed") as caught:
            await SmtpSession.open(settings, QUICK)
        assert caught.value.phase is phase
        assert not any(command.startswith(b"AUTH") for command in server.commands)


@pytest.mark.parametrize("tls", [TlsMode.IMPLICIT, TlsMode.STARTTLS])
async def test_a_certificate_for_another_name_is_refused(tls: TlsMode, tmp_path: Path) -> None:
    other = Certificates(tmp_path, names=("smtp.example.com",))
    async with server_of(tls, other) as server:
        settings = route(server.port, tls=tls, ca_file=other.ca_file)
        with pytest.raises(TransportError, match=r"(?i)IP address mismatch"):
            await SmtpSession.open(settings, QUICK)


@pytest.mark.parametrize("tls", [TlsMode.IMPLICIT, TlsMode.STARTTLS])
async def test_settings_disable_the_certificate_check(tls: TlsMode, certificates: Certificates) -> None:
    async with server_of(tls, certificates) as server:
        settings = replace(route(server.port, tls=tls), verify_certificate=False)
        session = await SmtpSession.open(settings, QUICK)
        assert (await session.send(message(), nothing)).code == 250
        await session.close()


async def test_an_authority_that_is_not_there_is_a_transport_error(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        settings = route(server.port, tls=TlsMode.STARTTLS, ca_file=tmp_path / "missing.pem")
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(settings, QUICK)
        assert caught.value.phase is Phase.CONNECT
        assert not server.connections


def holds_password(text: str) -> bool:
    octets = PASSWORD.encode()
    spellings = {PASSWORD, b64encode(octets).decode(), b64encode(b"\0ada\0" + octets).decode(), repr(PASSWORD)}
    return any(spelling in text for spelling in spellings)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_login_error_has_the_reply_and_not_the_password(mechanism: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    challenge = f"334 {b64encode(b'<1.2@scripted.test>').decode()}"
    refusal = "535 5.7.8 Error: authentication failed"
    answers: dict[str, Answer | list[Answer]] = {
        "AUTH": refusal if mechanism == "PLAIN" else challenge,
        "": refusal,  # what comes after a challenge is no command
    }
    server = ScriptedServer(answers, extensions=(*EXTENSIONS, f"AUTH {mechanism}"))
    async with server:
        settings = route(server.port, username="ada", password=PASSWORD)
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(settings, QUICK)
    error = caught.value
    assert error.phase is Phase.AUTH
    assert error.reply is not None
    assert (error.reply.code, error.reply.enhanced) == (535, "5.7.8")
    shown = [str(error), repr(error), error.reason, repr(error.reply), repr(settings), str(settings), caplog.text]
    shown += traceback.format_exception(error)
    assert not any(holds_password(text) for text in shown)
    assert "authentication failed" in str(error)


async def test_a_right_password_opens_a_session_that_does_not_show_it() -> None:
    async with ScriptedServer(extensions=(*EXTENSIONS, "AUTH PLAIN")) as server:
        settings = route(server.port, username="ada", password=PASSWORD)
        session = await SmtpSession.open(settings, QUICK)
        assert (await session.send(message(), nothing)).code == 250
        assert not holds_password(repr(session) + str(session) + repr(settings))
        auth = next(command for command in server.commands if command.startswith(b"AUTH PLAIN "))
        assert holds_password(auth.decode())
        await session.close()


@pytest.mark.parametrize("offered", [(), ("AUTH GSSAPI",)])
async def test_no_way_to_authenticate_is_a_transport_error(offered: tuple[str, ...]) -> None:
    async with ScriptedServer(extensions=(*EXTENSIONS, *offered)) as server:
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(route(server.port, username="ada", password=PASSWORD), QUICK)
        assert caught.value.phase is Phase.AUTH
        assert not holds_password(str(caught.value))


@pytest.mark.parametrize("how", [Act.DROP, Act.RESET])
async def test_lost_while_authenticating(how: Act) -> None:
    async with ScriptedServer({"AUTH": how}, extensions=(*EXTENSIONS, "AUTH PLAIN")) as server:
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(route(server.port, username="ada", password=PASSWORD), QUICK)
        assert caught.value.phase is Phase.AUTH


async def test_cancelled_while_opening_the_connection_is_closed() -> None:
    async with ScriptedServer({"EHLO": Act.HANG}) as server:
        task = asyncio.create_task(SmtpSession.open(route(server.port), QUICK))
        async with asyncio.timeout(5):
            while not server.commands:
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.connections[0].gone.wait(), 5)
