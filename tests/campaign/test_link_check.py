"""Links are followed over real HTTP, with limits, and never to an address that is not public."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from postroad.campaign import link_check
from postroad.campaign.link_check import LinkChecker, follow_links
from postroad.campaign.preflight import PreflightReport, check
from postroad.clock import SystemClock
from postroad.dns.public_address import networks
from postroad.dns.resolver import Resolver
from postroad.smtp.tls import client_context
from tests.campaign.checking import SIGNER
from tests.campaign.project import CAMPAIGN, CampaignProject
from tests.campaign.test_content import STORY, TEXT_FOOT
from tests.dns.nameserver import Nameserver, Trouble
from tests.https import https

LOOPBACK = networks(["127.0.0.0/8"])


class WebSite:
    """An HTTP server on loopback. ``replies``: status line and Location by path; a path without one never replies."""

    def __init__(self) -> None:
        self.replies: dict[str, tuple[str, str]] = {}
        self.requests: list[str] = []
        self.port = 0
        self._ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            path = head.split(" ")[1]
            if path not in self.replies:
                await self._ended.wait()
                return
            status, location = self.replies[path]
            field = f"Location: {location}\r\n" if location else ""
            # The body is announced, and never sent: a checker that reads it waits for ever.
            writer.write(f"HTTP/1.1 {status}\r\n{field}Content-Length: 1000000000\r\n\r\n".encode())
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def end(self) -> None:
        self._ended.set()


class World(NamedTuple):
    site: WebSite
    checker: LinkChecker
    resolver: Resolver

    def url(self, path: str, host: str = "www.site.test") -> str:
        return f"http://{host}:{self.site.port}{path}"


ZONE = {
    "www.site.test": {"A": ["127.0.0.1"]},
    "site.test": {"A": ["127.0.0.1"]},
    "other.test": {"A": ["127.0.0.1"]},
    "private.test": {"A": ["10.0.0.1"], "AAAA": ["fd00::1"]},
    "empty.test": {"TXT": ['"x"']},
}


@asynccontextmanager
async def a_world(*, allowed: bool = True) -> AsyncIterator[World]:
    site = WebSite()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    troubles = {"broken.test": Trouble.SERVFAIL}
    async with (
        Nameserver(ZONE, troubles=troubles) as nameserver,
        Resolver(nameserver.settings(), SystemClock()) as resolver,
    ):
        try:
            yield World(site, LinkChecker(resolver, client_context(), LOOPBACK if allowed else ()), resolver)
        finally:
            site.end()
            server.close()


async def code_of(world: World, url: str) -> tuple[str | None, str]:
    result = await world.checker.check(url)
    return (result.code.word if result.code is not None else None), result.why


STATUS = {
    "200 OK": None,
    "204 No Content": None,
    "404 Not Found": "link.dead",
    "410 Gone": "link.dead",
    "500 Internal Server Error": "link.dead",
    "403 Forbidden": "link.unchecked",
    "429 Too Many Requests": "link.unchecked",
    "503 Service Unavailable": "link.unchecked",
}


@pytest.mark.parametrize(("status", "code"), STATUS.items())
async def test_the_status_decides(status: str, code: str | None) -> None:
    async with a_world() as world:
        world.site.replies["/page?a=1"] = (status, "")
        assert (await code_of(world, world.url("/page?a=1#part")))[0] == code
        [request] = world.site.requests
        assert request.startswith("GET /page?a=1 HTTP/1.1\r\n")
        assert f"Host: www.site.test:{world.site.port}\r\n" in request
        assert not {"cookie:", "authorization:"} & {line.split(" ")[0].lower() for line in request.splitlines()}


async def test_a_redirect_within_the_domain_is_fine_and_to_another_is_named() -> None:
    async with a_world() as world:
        world.site.replies |= {
            "/a": ("301 Moved Permanently", world.url("/b", "site.test")),
            "/b": ("302 Found", "/c"),
            "/c": ("200 OK", ""),
            "/out": ("302 Found", world.url("/c", "other.test")),
            "/gone": ("302 Found", "/nothing"),
            "/nothing": ("404 Not Found", ""),
        }
        assert await code_of(world, world.url("/a")) == (None, "")
        assert await code_of(world, world.url("/out")) == ("link.redirects", "redirects to other.test")
        assert await code_of(world, world.url("/gone")) == ("link.dead", "status 404")


async def test_an_endless_redirect_ends() -> None:
    async with a_world() as world:
        world.site.replies["/loop"] = ("302 Found", "/loop")
        assert await code_of(world, world.url("/loop")) == ("link.dead", "it redirects more than 5 times")
        assert len(world.site.requests) == 6


@pytest.mark.parametrize("target", ["file:///etc/passwd", "gopher://x.test/", "http://", "http://[::1", "javascript:x"])
async def test_a_redirect_to_something_else_is_dead(target: str) -> None:
    async with a_world() as world:
        world.site.replies["/x"] = ("302 Found", target)
        code, why = await code_of(world, world.url("/x"))
        assert code == "link.dead", why
        assert all(request.startswith("GET /x ") for request in world.site.requests)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost.test", "[::1]", "[::ffff:127.0.0.1]", "private.test", "169.254.169.254", "0.0.0.0"],  # noqa: S104
)
async def test_no_private_address_is_connected_to(host: str) -> None:
    async with a_world(allowed=False) as world:
        code, why = await code_of(world, world.url("/", host))
        assert code == ("link.dead" if host == "localhost.test" else "link.unusable"), why
        assert world.site.requests == []


@pytest.mark.parametrize("host", ["private.test", "10.0.0.1", "[::1]"])
async def test_a_redirect_to_a_private_address_is_not_followed(host: str) -> None:
    async with a_world() as world:
        world.site.replies["/in"] = ("302 Found", world.url("/secret", host))
        code, why = await code_of(world, world.url("/in"))
        assert (code, "no public address" in why) == ("link.unusable", True)
        assert len(world.site.requests) == 1


async def test_hosts_without_an_address_or_an_answer_differ() -> None:
    async with a_world() as world:
        assert (await code_of(world, "http://missing.test/"))[0] == "link.dead"
        assert (await code_of(world, "http://empty.test/"))[0] == "link.dead"
        assert (await code_of(world, "http://broken.test/"))[0] == "link.unchecked"
        assert (await code_of(world, f"http://{'a' * 70}.test/"))[0] == "link.dead"


async def test_a_refused_connection_is_dead_and_a_slow_server_is_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_world() as world:
        assert (await code_of(world, "http://www.site.test:1/"))[0] == "link.dead"
        monkeypatch.setattr(link_check, "WITHIN_S", 0.5)
        assert await code_of(world, world.url("/silent")) == ("link.unchecked", "no reply within 0.5 s")


async def test_a_certificate_of_another_name_is_dead(tmp_path: Path) -> None:
    async with https(tmp_path, "www.site.test", "hello") as (site, trust), a_world() as world:
        checker = LinkChecker(world.resolver, trust, LOOPBACK)
        assert (await checker.check(f"https://www.site.test:{site.port}/")).code is None
        result = await checker.check(f"https://other.test:{site.port}/")
        assert result.code is not None
        assert (result.code.word, "certificate" in result.why.lower()) == ("link.dead", True)


def report_of(project: CampaignProject, engine: sa.Engine, html: str) -> PreflightReport:
    project.fill(["a@example.com,,Ada"])
    project.template("hello.html", html + "{{ postal_address }} <a href='{{ unsubscribe_url }}'>bye</a>")
    project.template("hello.txt", STORY + TEXT_FOOT)
    project.apply(CAMPAIGN + "    html: hello.html\n")
    return check(engine, project.settings, SIGNER, "spring")


async def test_each_link_of_a_step_is_followed_once_and_named_with_its_line(
    project: CampaignProject, engine: sa.Engine
) -> None:
    async with a_world() as world:
        world.site.replies["/dead"] = ("404 Not Found", "")
        dead, merged = world.url("/dead"), world.url("/{{ name }}")
        html = (
            f"<p>{STORY}</p>\n<a href='{dead}'>x</a>\n<a href='{dead}'>y</a>\n<a href='{merged}'>z</a><a href='#'>n</a>"
        )
        report = await asyncio.to_thread(report_of, project, engine, html)
        seen: list[tuple[int, int]] = []
        findings = await follow_links(world.checker, report.contents, lambda done, total: seen.append((done, total)))
        where = "campaign spring, step hello, html, line"
        assert {finding.code: finding.what for finding in findings} == {
            "link.dead": f"{where}s 2, 3: {dead}: status 404",
            "link.unchecked": f"{where} 4: {merged}: it has merge fields, and is not followed",
        }
        assert len(world.site.requests) == 1  # Neither the link with a merge field nor that to unsubscribe is followed.
        assert seen == [(1, 1)]


async def test_number_and_time_are_limited(
    project: CampaignProject, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_check, "MAX_LINKS", 3)
    monkeypatch.setattr(link_check, "ALL_WITHIN_S", 1.0)
    async with a_world() as world:
        world.site.replies |= {f"/{number}": ("200 OK", "") for number in (0, 1)}
        html = f"<p>{STORY}</p>" + "".join(f"<a href='{world.url(f'/{number}')}'>x</a>" for number in range(6))
        report = await asyncio.to_thread(report_of, project, engine, html)
        [finding] = await follow_links(world.checker, report.contents)
        assert finding.code == "link.unchecked"
        assert all(world.url(f"/{number}") in finding.what for number in (2, 3, 4, 5))
        assert len(world.site.requests) == 3
