"""Receivers: every number leads to its messages, a deferral to its reply and rule, and a change is undone."""

from __future__ import annotations

import asyncio
import re
from html import unescape

import httpx
import pytest
import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.gates.name import GateName, Receiver
from postroad.queue import Gate, Queue, Rate
from postroad.settings import AccessRole
from postroad.store.engine import read, write
from postroad.store.shaping import add_change, open_changes
from tests.console.delivery_rows import GOOGLE, a_change, add_delivery
from tests.console.kit import Console, form_of, press
from tests.console.pages import HOSTILE, fill

NUMBER = re.compile(r'<a class="num" href="(/receivers/messages\?[^"]+)"[^>]*>([\d,]+)</a>')


def numbers(page: httpx.Response) -> dict[str, int]:
    """The links to messages, with the number that each shows."""
    return {unescape(href): int(number.replace(",", "")) for href, number in NUMBER.findall(page.text)}


async def listed_rows(http: httpx.AsyncClient, href: str) -> int:
    """Count the messages of a list, over all its pages."""
    total, target = 0, href
    while target:
        page = await http.get(target)
        assert page.status_code == 200, page.text
        total += len(re.findall(r'<th scope="row" class="recipient"><a href="/why', page.text))
        following = re.search(r'href="([^"]+)" rel="next"', page.text)
        target = unescape(following[1]) if following else ""
    return total


def add_one_of_each(engine: sa.Engine, *, hostile: str = "x") -> str:
    with write(engine) as connection:
        return add_delivery(connection, SystemClock().now(), "google", 70, hostile=hostile)


@pytest.mark.parametrize("window", ["1h", "24h", "7d"])
async def test_every_number_leads_to_so_many_messages(console: Console, window: str) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    page = await http.get(f"/receivers?window={window}")
    found = numbers(page)
    assert len(found) == 5 + 5 + 3
    for href, number in found.items():
        assert f"window={window}" in href
        assert await listed_rows(http, href) == number, href


async def test_two_clicks_lead_from_deferrals_to_reply_rule_and_messages(console: Console, engine: sa.Engine) -> None:
    await asyncio.to_thread(add_one_of_each, engine)
    http = await console.client(AccessRole.VIEW)
    deferred = {href: n for href, n in numbers(await http.get("/receivers")).items() if "outcome=deferred" in href}
    [(href, number)] = deferred.items()
    assert number == 20
    first = await http.get(href)
    assert "Gmail has detected an unusual rate of unsolicited mail" in first.text
    assert "421 4.7.28" in first.text
    assert "rate limited" in first.text
    groups = numbers(first)
    assert sum(groups.values()) == number
    assert len(groups) == 2, "an ending of its own is another reply; an address is not"
    for of_reply, members in groups.items():
        second = await http.get(of_reply)
        assert "Messages with this reply" in second.text
        assert await listed_rows(http, of_reply) == members


async def test_the_pace_is_shown_against_the_limits_of_its_gate(
    console: Console, engine: sa.Engine, redis_url: str
) -> None:
    name = await asyncio.to_thread(add_one_of_each, engine)
    http = await console.client(AccessRole.VIEW)
    assert "no mail waits or leaves" in (await http.get("/receivers")).text, "the queue has no gate"
    async with Queue.open(redis_url, "email:send") as queue:
        gate = str(GateName.at_receiver("news@example.com", Receiver("google")))
        await queue.set_gate(Gate(name=gate, rate=Rate(count=30, per_ms=2_000), concurrency=7))
        page = (await http.get("/receivers")).text
        assert re.search(r">[67](\.\d)? of 900 a minute", page), (
            "70 outcomes in ten minutes, which begin with a full one"
        )
        assert "0 of 7 at a time" in page
        await queue.pause_gate(gate, None)
        assert ">paused</span>" in (await http.get("/receivers")).text
    detail = (await http.get(f"/receivers/messages?sender={name}&provider=google&outcome=deferred")).text
    assert "of 900 that its limit allows" in detail
    assert "provider.google" in detail, "the table of shaping.toml that the limits come from"


async def test_a_change_is_undone_with_its_extent_and_a_record(
    console: Console, engine: sa.Engine, redis_url: str
) -> None:
    now = SystemClock().now()
    with write(engine) as connection:
        assert add_change(connection, a_change(now, GOOGLE, "gmail-rate", connections=2))
        assert add_change(connection, a_change(now, GOOGLE, "gmail-stop", suspended=True, reply=f"421 {HOSTILE}"))
        assert add_change(connection, a_change(now, "sender:news@example.com", "blocked", provider=None))
    async with Queue.open(redis_url, "email:send") as queue:
        await queue.set_gate(Gate(name=GOOGLE, concurrency=2))
        await queue.pause_gate(GOOGLE, None)
        http = await console.client(AccessRole.OPERATE, user="carl@example.com")
        links = re.findall(r'href="(/receivers/undo[^"]+)"', (await http.get("/receivers")).text)
        asked = await http.get(unescape(links[-1]))
        extent = re.search(r'open changes are undone</dt><dd><a class="num" href="([^"]+)"[^>]*>2</a>', asked.text)
        assert extent is not None
        assert (await http.get(unescape(extent[1]))).text.count(">open</span>") == 2, "the number leads to its rows"
        assert "gmail-stop set: suspended" in asked.text
        assert "<script>" not in asked.text
        with read(engine) as connection:
            assert len(open_changes(connection)) == 3, "a GET changes nothing"
        done = await press(http, unescape(links[-1]), note="Google confirmed it")
        assert (done.status_code, done.headers["location"]) == (303, "/receivers")
        with read(engine) as connection:
            assert [change.rule for change in open_changes(connection)] == ["blocked"]
        state = next(state for state in await queue.gates() if state.gate.name == GOOGLE)
        assert not state.gate.paused_until_ms
        assert state.gate.concurrency != 2
    record = console.audit()[0]
    assert (record.actor, record.action, record.target) == ("carl@example.com", "gate.resume", GOOGLE)
    assert (record.count, record.note) == (2, "Google confirmed it")
    log = (await http.get("/receivers/changes")).text
    assert log.count("ended by carl@example.com in the console") == 2
    again = await http.post("/receivers/undo", data={"gate": GOOGLE, "note": ""})
    assert again.status_code == 409
    assert [each.action for each in console.audit()].count("gate.resume") == 1


async def test_the_undo_names_a_pause_of_an_operator(console: Console, engine: sa.Engine, redis_url: str) -> None:
    with write(engine) as connection:
        assert add_change(connection, a_change(SystemClock().now(), GOOGLE, "gmail-rate", connections=2))
    http = await console.client(AccessRole.OPERATE)
    async with Queue.open(redis_url, "email:send") as queue:
        await queue.set_gate(Gate(name=GOOGLE, concurrency=2))
        path = httpx.URL("/receivers/undo", params={"gate": GOOGLE})
        assert "That pause ends, too" not in (await http.get(path)).text
        await queue.pause_gate(GOOGLE, None)
        assert "That pause ends, too" in (await http.get(path)).text


@pytest.mark.parametrize("by", ["a reply", "an operator"])
async def test_only_what_the_page_showed_is_undone(
    console: Console, engine: sa.Engine, redis_url: str, by: str
) -> None:
    now, http = SystemClock().now(), await console.client(AccessRole.OPERATE)
    with write(engine) as connection:
        assert add_change(connection, a_change(now, GOOGLE, "gmail-rate", connections=2))
    async with Queue.open(redis_url, "email:send") as queue:
        await queue.set_gate(Gate(name=GOOGLE, concurrency=2))
        action, shown = form_of(await http.get(httpx.URL("/receivers/undo", params={"gate": GOOGLE})))
        if by == "a reply":
            with write(engine) as connection:
                assert add_change(connection, a_change(now, GOOGLE, "gmail-stop", suspended=True, reply="421 later"))
        await queue.pause_gate(GOOGLE, None)
        refused = await http.post(action, data=shown)
        assert refused.status_code == 409
        assert "has changed since" in refused.text
        assert ("gmail-stop set" if by == "a reply" else "That pause ends, too") in refused.text
        with read(engine) as connection:
            assert len(open_changes(connection)) == (2 if by == "a reply" else 1)
        assert [state.gate.paused_until_ms for state in await queue.gates()] != [None]
        assert not console.audit()
        action, shown = form_of(refused)
        assert (await http.post(action, data=shown)).status_code == 303
        with read(engine) as connection:
            assert not open_changes(connection)


async def test_changes_page_by_key_and_filter_by_sender(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    seen, target = 0, "/receivers/changes?sender=news%40example.com"
    while target:
        page = await http.get(target)
        assert page.status_code == 200
        assert "/receivers/undo" not in page.text, "a user who may only view gets no link to undo"
        seen += page.text.count('<th scope="row"><a href="/receivers/changes')
        following = re.search(r'href="([^"]+)" rel="next"', page.text)
        target = unescape(following[1]) if following else ""
    assert seen == 62
    assert "No change of the shaping is recorded." in (await http.get("/receivers/changes?sender=other")).text
    assert (await http.get("/receivers/changes?after=nonsense")).status_code == 422


async def test_an_empty_page_says_what_to_do_next(console: Console) -> None:
    http = await console.client(AccessRole.VIEW)
    page = (await http.get("/receivers")).text
    assert '<a href="/campaigns">Choose a longer time, or look at the campaigns</a>' in page
    assert "No reply slows a sender down." in page
    assert (await http.get("/receivers?window=1y")).status_code == 422
    assert (await http.get("/receivers?sender=none")).status_code == 409
    assert (await http.get("/receivers/messages?sender=none&provider=google")).status_code == 409


async def test_replies_and_names_of_strangers_are_shown_as_text(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.OPERATE)
    for path in ("/receivers", "/receivers/changes", "/receivers/messages?sender=delivery&provider=google"):
        page = (await http.get(path)).text
        assert "&lt;script&gt;alert(1)" in page, path
        assert "<script>alert" not in page, path
