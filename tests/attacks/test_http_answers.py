"""HTTP servers that are slow, endless or packed: what we fetch from strangers ends within its limits."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from postroad.clock import SystemClock
from postroad.dns.mta_sts import MAX_POLICY_BYTES, PolicyError, fetch_policy
from postroad.dns.public_address import EVERYWHERE
from postroad.dns.resolver import Resolver
from postroad.doctor.http import check_web
from postroad.doctor.prefect import check_prefect, check_protection
from postroad.errors import UnavailableError
from postroad.fetch import FetchError, HttpAnswer, fetch
from postroad.local import prefect_access
from postroad.local.prefect_access import PrefectAccess
from postroad.queue import Health
from postroad.settings import OAuthSettings, SesWebhook, Settings
from postroad.smtp.oauth import TokenError, TokenSource
from postroad.web.webhooks import sns
from postroad.web.webhooks.request import WebhookRequest
from tests.attacks.limits import MEBIBYTE, run_limited
from tests.dns.nameserver import Nameserver
from tests.smtp.conftest import Certificates

WITHIN_S = 0.5
BOUND_S = 20.0
MAX_BYTES = 65_536
NAME = "mta-sts.example.test"
ZONE = {"_mta-sts.example.test": {"TXT": ['"v=STSv1; id=1;"']}, NAME: {"A": ["127.0.0.1"]}}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
Attack = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def keep_sending(writer: asyncio.StreamWriter, unit: bytes, every_s: float = 0.02) -> None:
    while not writer.is_closing():
        writer.write(unit)
        await writer.drain()
        await asyncio.sleep(every_s)


async def no_answer(writer: asyncio.StreamWriter) -> None:
    await keep_sending(writer, b"")


async def trickling_status(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 ")
    await keep_sending(writer, b"O")


async def trickling_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await keep_sending(writer, b"X-More: yes\r\n")


async def interim_answers(writer: asyncio.StreamWriter) -> None:
    await keep_sending(writer, b"HTTP/1.1 103 Early Hints\r\n\r\n")


async def trickling_body(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 60000\r\n\r\n")
    await keep_sending(writer, b"x")


async def trickling_chunks(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    await keep_sending(writer, b"1\r\nx\r\n")


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await keep_sending(writer, b"X-More: " + b"y" * 8_000 + b"\r\n", every_s=0)


async def endless_body(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"\r\n")
    await keep_sending(writer, b"x" * 16_000, every_s=0)


async def declared_long(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 999999999999\r\n\r\n")
    await keep_sending(writer, b"x" * 16_000, every_s=0)


@cache
def packed_body() -> bytes:
    """Fewer bytes than are accepted, which unpack to 60 MiB."""
    packer = zlib.compressobj(wbits=31)
    body = b"".join([packer.compress(bytes(MEBIBYTE)) for _ in range(60)] + [packer.flush()])
    assert len(body) < MAX_BYTES
    return body


async def packed(writer: asyncio.StreamWriter) -> None:
    body = packed_body()
    writer.write(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()


ATTACKS = [
    no_answer,
    trickling_status,
    trickling_headers,
    interim_answers,
    trickling_body,
    trickling_chunks,
    endless_headers,
    endless_body,
    declared_long,
    packed,
]


@asynccontextmanager
async def attacker(attack: Attack, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a server that attacks its clients in this way. Yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await attack(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def fetch_from(attack: Attack) -> HttpAnswer:
    async with attacker(attack) as port, httpx.AsyncClient(trust_env=False) as client:
        return await fetch(client, f"http://127.0.0.1:{port}/", within_s=WITHIN_S, max_bytes=MAX_BYTES)


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_fetch_ends_within_its_limits(attack: Attack) -> None:
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(FetchError):
            await fetch_from(attack)


def fetch_packed() -> str:
    packed_body()

    async def fetch_it() -> str:
        try:
            async with attacker(packed) as port, httpx.AsyncClient(trust_env=False) as client:
                await fetch(client, f"http://127.0.0.1:{port}/", within_s=BOUND_S, max_bytes=MAX_BYTES)
        except FetchError as error:
            return str(error)
        return "it was taken"

    return asyncio.run(fetch_it())


def test_a_packed_answer_is_not_unpacked() -> None:
    outcome = run_limited("tests.attacks.test_http_answers:fetch_packed", memory_mib=40)
    assert outcome.error is None
    assert "content coding" in outcome.value


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_answer_to_a_client_of_prefect_ends_within_limits(
    monkeypatch: pytest.MonkeyPatch, method: str, attack: Attack
) -> None:
    """A POST asks for a token first: the client reads that answer by itself."""
    monkeypatch.setattr(prefect_access, "MAX_ANSWER_BYTES", MAX_BYTES)
    async with attacker(attack) as port, asyncio.timeout(BOUND_S):
        access = PrefectAccess(url=f"http://127.0.0.1:{port}", password="postroad:secret")
        async with access.http(WITHIN_S) as client:
            with pytest.raises(httpx.TransportError):
                await client.request(method, "/health")


@pytest.mark.parametrize(("attack", "says"), [(packed, "content coding"), (endless_body, "longer than")])
async def test_a_client_refuses_what_is_packed_or_too_large_before_its_deadline(
    monkeypatch: pytest.MonkeyPatch, attack: Attack, says: str
) -> None:
    monkeypatch.setattr(prefect_access, "MAX_ANSWER_BYTES", MAX_BYTES)
    async with attacker(attack) as port, PrefectAccess(url=f"http://127.0.0.1:{port}").http(BOUND_S) as client:
        with pytest.raises(httpx.RemoteProtocolError, match=says):
            await client.get("/health")


@pytest.mark.parametrize("attack", ATTACKS)
async def test_doctor_ends_its_checks_within_limits(monkeypatch: pytest.MonkeyPatch, attack: Attack) -> None:
    monkeypatch.setattr("postroad.doctor.http.WITHIN_S", WITHIN_S)
    monkeypatch.setattr("postroad.doctor.prefect.TIMEOUT_S", WITHIN_S)
    async with attacker(attack) as port, asyncio.timeout(BOUND_S):
        url = f"http://127.0.0.1:{port}"
        [check] = await check_web(Settings(public_url=url))
        assert (check.part, check.health) == ("public_url", Health.WARN)
        access = PrefectAccess(url=url, password=None)
        assert [check.health for check in await check_prefect(access)] == [Health.WARN]
        assert await check_protection(access) == []


CLIENTS = re.compile(
    r"\b(httpx\.(AsyncClient|Client|get|post|put|patch|delete|head|options|request|stream)\(|urlopen\(|http\.client"
    r"|urllib\.request|urllib3|aiohttp|import requests\b|from httpx import|from requests)"
)


def test_no_other_module_makes_an_http_client() -> None:
    root = Path(__file__).parents[2]
    files = [file for folder in ("src", "flows", "tasks", "deployments") for file in (root / folder).rglob("*.py")]
    assert len(files) > 300
    found = {file.name for file in files if CLIENTS.search(file.read_text())}
    assert found == {"link_check.py"}  # It reads no body, and ends in time: tests/campaign/test_link_check.
    assert CLIENTS.search("async with httpx.AsyncClient() as client:")


async def test_no_redirect_is_followed() -> None:
    async def redirect(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    assert (await fetch_from(redirect)).status == 302


async def test_no_content_coding_is_asked_for() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        answer = await fetch(client, url, within_s=5, max_bytes=2)
    assert answer.body == b"ok"
    assert b"accept-encoding: identity\r\n" in heads[0].lower()
    assert heads[0].lower().count(b"accept-encoding") == 1


async def test_a_tls_handshake_that_never_ends_is_cut_off() -> None:
    async def handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x16\x03\x03\x40\x00")
        with suppress(OSError, asyncio.CancelledError):
            await keep_sending(writer, b"\x02")
        writer.close()

    server = await asyncio.start_server(handshake, "127.0.0.1", 0)
    async with server, httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(BOUND_S):
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(FetchError, match="no complete response within"):
            await fetch(client, url, within_s=WITHIN_S, max_bytes=MAX_BYTES)


@pytest.mark.parametrize("attack", [trickling_headers, trickling_body, endless_body, packed])
async def test_the_policy_of_a_stranger_is_fetched_within_limits(attack: Attack, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path, names=(NAME,))
    trust = ssl.create_default_context(cafile=str(certificates.ca_file))
    async with (
        attacker(attack, certificates.server_context()) as port,
        Nameserver(ZONE) as server,
        Resolver(server.settings(), SystemClock()) as resolver,
        asyncio.timeout(BOUND_S),
    ):
        with pytest.raises(PolicyError):
            await fetch_policy(resolver, "example.test", trust, port=port, allowed=EVERYWHERE, within_s=WITHIN_S)
    assert MAX_POLICY_BYTES <= MAX_BYTES


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1"])
async def test_no_policy_is_fetched_from_an_address_that_is_not_public(address: str) -> None:
    """A stranger's DNS would make us ask services of this machine and its network."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    zone = {**ZONE, NAME: {"A": [address]}}
    async with server, Nameserver(zone) as dns, Resolver(dns.settings(), SystemClock()) as resolver:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(PolicyError, match=f"has no public address: {address}"):
            await fetch_policy(resolver, "example.test", ssl.create_default_context(), port=port)
    assert not asked


@pytest.mark.parametrize("attack", [trickling_headers, trickling_body, endless_body, packed])
async def test_a_token_is_fetched_within_limits(attack: Attack, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    async with attacker(attack, certificates.server_context()) as port, asyncio.timeout(BOUND_S):
        settings = OAuthSettings(
            token_url=f"https://127.0.0.1:{port}/token",
            client_id="postroad",
            refresh_token=SecretStr("refresh-me"),
            ca_file=certificates.ca_file,
        )
        source = TokenSource(settings, SystemClock(), timeout_ms=int(WITHIN_S * 1000))
        with pytest.raises(TokenError, match="gives no token"):
            await source.token()


@pytest.mark.parametrize("attack", [trickling_headers, trickling_body, endless_body, packed])
async def test_a_certificate_of_sns_is_fetched_within_limits(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sns, "FETCH_WITHIN_S", WITHIN_S)
    topic = "arn:aws:sns:eu-west-1:123456789012:bounces"
    certificate = f"https://{sns.host_of(topic)}/SimpleNotificationService-{'0' * 32}.pem"
    message = {"Type": "Notification", "Message": "{}", "TopicArn": topic, "SigningCertURL": certificate}
    request = WebhookRequest(body=json.dumps(message).encode(), headers={}, now_ms=0)
    async with (
        attacker(attack) as port,
        httpx.AsyncClient(transport=_PlainToLoopback(port)) as client,
        asyncio.timeout(BOUND_S),
    ):
        topics = sns.SnsTopics(SesWebhook(topics=(topic,)), 60_000, client)
        with pytest.raises(UnavailableError, match="SNS is unreachable"):
            await topics.verify(request)


class _PlainToLoopback(httpx.AsyncHTTPTransport):
    """Finds every name at a port on loopback, without TLS."""

    def __init__(self, port: int) -> None:
        super().__init__(trust_env=False)
        self._port = port

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        return await super().handle_async_request(request)
