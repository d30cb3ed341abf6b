"""XOAUTH2: tokens are fetched once, cached, and renewed when the server rejects them. No error contains a secret."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from postroad.settings import OAuthSettings, TlsMode
from postroad.smtp.endpoint import Endpoint
from postroad.smtp.errors import TransportError
from postroad.smtp.oauth import TokenSource
from postroad.smtp.reply import Phase
from postroad.smtp.session import SmtpSession
from tests.https import Site, https
from tests.kit.clock import SleepingClock
from tests.smtp.conftest import QUICK, Certificates, message, nothing, route
from tests.smtp.scripted import EXTENSIONS, Answer, ScriptedServer

REFUSAL = ["334 eyJzdGF0dXMiOiI0MDAifQ=="]
SECRETS = ("refresh-me", "client-secret", "token-1", "token-2")


def numbered() -> Callable[[str], str]:
    count = iter(range(1, 100))
    return lambda _: json.dumps({"access_token": f"token-{next(count)}", "expires_in": 3600, "token_type": "Bearer"})


@asynccontextmanager
async def tokens(
    folder: Path, clock: SleepingClock, body: str | Callable[[str], str]
) -> AsyncIterator[tuple[Site, TokenSource]]:
    async with https(folder, "127.0.0.1", body) as (site, _):
        yield site, TokenSource(settings_for(site), clock)


def settings_for(site: Site) -> OAuthSettings:
    return OAuthSettings(
        token_url=f"https://127.0.0.1:{site.port}/token",
        client_id="postroad",
        client_secret=SecretStr("client-secret"),
        refresh_token=SecretStr("refresh-me"),
        scope="https://mail.example/",
        ca_file=site.ca_file,
    )


def endpoint(server: ScriptedServer, source: TokenSource) -> Endpoint:
    return replace(route(server.port, username="ada@example.com"), tokens=source)


def scripted(**answers: Answer | list[Answer]) -> ScriptedServer:
    return ScriptedServer(answers, extensions=(*EXTENSIONS, "AUTH PLAIN XOAUTH2"))


def logins(server: ScriptedServer) -> list[str]:
    sent = [command.split()[2] for command in server.commands if command.startswith(b"AUTH XOAUTH2 ")]
    return [b64decode(word).decode() for word in sent]


async def test_a_token_is_shared_until_shortly_before_it_expires(tmp_path: Path) -> None:
    clock = SleepingClock()
    async with tokens(tmp_path, clock, numbered()) as (site, source), scripted() as server:
        sessions = await asyncio.gather(*(SmtpSession.open(endpoint(server, source), QUICK) for _ in range(5)))
        assert (await sessions[0].send(message(), nothing)).code == 250
        assert logins(server) == ["user=ada@example.com\x01auth=Bearer token-1\x01\x01"] * 5
        assert len(site.requests) == 1
        form = site.requests[0].rpartition("\r\n\r\n")[2]
        assert "grant_type=refresh_token" in form
        assert "refresh_token=refresh-me" in form
        clock.advance(3_540_000 - 1)
        sessions.append(await SmtpSession.open(endpoint(server, source), QUICK))
        assert len(site.requests) == 1
        clock.advance(1)
        sessions.append(await SmtpSession.open(endpoint(server, source), QUICK))
        assert len(site.requests) == 2
        assert "token-2" in logins(server)[-1]
        for session in sessions:
            await session.close()


async def test_a_token_that_is_refused_is_renewed_once(tmp_path: Path) -> None:
    refused: list[Answer] = ["334 eyJzdGF0dXMiOiI0MDAifQ=="]
    answers: dict[str, Answer | list[Answer]] = {"AUTH": refused, "": ["535 5.7.8 Username and Password not accepted"]}
    async with tokens(tmp_path, SleepingClock(), numbered()) as (site, source), scripted(**answers) as server:
        session = await SmtpSession.open(endpoint(server, source), QUICK)
        assert [login.split("Bearer ")[1][:7] for login in logins(server)] == ["token-1", "token-2"]
        assert len(site.requests) == 2
        await session.close()


async def test_a_token_that_is_refused_again_is_a_transport_error(tmp_path: Path) -> None:
    async with tokens(tmp_path, SleepingClock(), numbered()) as (site, source), scripted(AUTH="535 5.7.8 no") as server:
        with pytest.raises(TransportError) as caught:
            await SmtpSession.open(endpoint(server, source), QUICK)
        assert (caught.value.phase, str(caught.value.reply)) == (Phase.AUTH, "535 5.7.8 no")
        assert len(site.requests) == 2


async def test_a_server_that_is_busy_is_asked_for_no_new_token(tmp_path: Path) -> None:
    async with (
        tokens(tmp_path, SleepingClock(), numbered()) as (site, source),
        scripted(AUTH="454 4.7.0 later") as server,
    ):
        with pytest.raises(TransportError):
            await SmtpSession.open(endpoint(server, source), QUICK)
        assert len(site.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        ("400 Bad Request", '{"error": "invalid_grant", "error_description": "refresh-me"}', "400: invalid_grant"),
        ("200 OK", "hello", "without a JSON object"),
        ("200 OK", "[]", "without a JSON object"),
        ("200 OK", "{}", "no token"),
        ("302 Found", "{}", "302"),
    ],
)
async def test_no_token_is_a_transport_error_that_tells_no_secret(
    tmp_path: Path, status: str, body: str, says: str
) -> None:
    async with tokens(tmp_path, SleepingClock(), body) as (site, source), scripted() as server:
        site.status = status
        with pytest.raises(TransportError, match=says) as caught:
            await SmtpSession.open(endpoint(server, source), QUICK)
        assert caught.value.phase is Phase.AUTH
        assert not any(secret in f"{caught.value!r}{endpoint(server, source)!r}" for secret in SECRETS)


async def test_a_token_server_that_is_away_or_not_to_be_trusted(tmp_path: Path) -> None:
    async with tokens(tmp_path, SleepingClock(), numbered()) as (site, source), scripted() as server:
        settings = settings_for(site).model_copy(update={"ca_file": None})
        with pytest.raises(TransportError, match=r"(?i)certificate"):
            await SmtpSession.open(endpoint(server, TokenSource(settings, SleepingClock())), QUICK)
        assert not site.requests
    async with scripted() as server:
        with pytest.raises(TransportError, match="gives no token"):
            await SmtpSession.open(endpoint(server, source), QUICK)


async def test_no_login_leaves_over_a_connection_that_is_not_encrypted(certificates: Certificates) -> None:
    extensions = (*EXTENSIONS, "AUTH PLAIN")
    async with ScriptedServer(extensions=extensions) as server:
        for tls in (TlsMode.NONE, TlsMode.OPPORTUNISTIC):
            plain = replace(route(server.port, username="ada", password="pony"), tls=tls, clear_text_login=False)
            with pytest.raises(TransportError, match="clear_text_login") as caught:
                await SmtpSession.open(plain, QUICK)
            assert caught.value.phase is Phase.AUTH
        assert not any(command.startswith(b"AUTH") for command in server.commands)
