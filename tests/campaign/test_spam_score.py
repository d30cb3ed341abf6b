"""The score of a real rspamd is shown, and a server that gives none never prevents a launch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from postroad.campaign import spam_score
from postroad.campaign.finding import Level
from postroad.campaign.spam_score import spam_finding
from postroad.mail.message import Message
from tests.campaign.rspamd import rspamd
from tests.campaign.test_content import STORY
from tests.https import Site
from tests.mail.conftest import NOW, compiled

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
WHERE = "campaign spring, step hello"


def message(text: str = f"Hello {{{{ name }}}},\n\n{STORY}", address: str = "ada@example.org") -> Message:
    made = compiled(subject="News for {{ name }}", text=f"{text}\n{{{{ unsubscribe_url }}}}", html=None)
    return made.merge(0, address, {"name": "Ada"}, NOW)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with rspamd() as url:
        yield url


async def test_a_good_message_gets_its_score_as_information(server: str) -> None:
    finding = await spam_finding(f"{server}/", WHERE, message())
    assert (finding.code, finding.level, finding.step) == ("spam.ok", Level.INFO, "hello"), finding.what
    assert " of 15.0 points, no action" in finding.what
    assert "HFILTER" not in finding.what  # of the client that connects


async def test_a_spam_message_is_a_warning_with_its_action(server: str) -> None:
    finding = await spam_finding(server, WHERE, message(GTUBE))
    assert (finding.code, finding.level) == ("spam.score", Level.WARN)
    assert "rspamd gives 15.0 of 15.0 points, reject" in finding.what


async def test_any_address_can_be_scored(server: str) -> None:
    finding = await spam_finding(server, WHERE, message(address='"a b\n"+grüße@example.org'))
    assert finding.code in ("spam.ok", "spam.score")


async def test_a_server_that_does_not_listen_is_a_finding() -> None:
    finding = await spam_finding("http://127.0.0.1:1", WHERE, message())
    assert (finding.code, finding.level) == ("spam.unchecked", Level.WARN)


ANSWERS = ["", "[]", "{", '{"score": "x"}', '{"score": 1}', "x" * (spam_score.MAX_ANSWER_BYTES + 1)]


@asynccontextmanager
async def http(body: str) -> AsyncIterator[tuple[Site, str]]:
    site = Site(body)
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    async with server:
        yield site, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer[:20])
async def test_an_answer_that_is_not_a_score_is_a_finding(answer: str) -> None:
    async with http(answer) as (_, url):
        finding = await spam_finding(url, WHERE, message())
    assert finding.code == "spam.unchecked"
    assert len(finding.what) < 500


async def test_an_error_of_the_server_is_a_finding() -> None:
    async with http(json.dumps({"score": 1, "required_score": 15, "action": "no action"})) as (site, url):
        assert (await spam_finding(url, WHERE, message())).code == "spam.ok"
        site.status = "403 Forbidden"
        assert "status 403" in (await spam_finding(url, WHERE, message())).what


async def test_a_slow_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    monkeypatch.setattr(spam_score, "WITHIN_S", 0.3)
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert "no complete response within 0.3 s" in (await spam_finding(url, WHERE, message())).what
    finally:
        ended.set()
        server.close()
