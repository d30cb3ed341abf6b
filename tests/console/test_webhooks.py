"""Webhooks: what each endpoint got and lacks, and what an operator sends again. No page has a secret."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from html import unescape

import httpx

from postroad.settings import AccessRole
from tests.console.kit import WEBHOOK_SECRET, Console, form_of, press
from tests.console.pages import fill, routes
from tests.console.webhook_rows import DEAD, DELIVERED
from tests.events_out.receiver import SECRET, status
from tests.events_out.shop import URL_SECRET, a_shop


async def rows(http: httpx.AsyncClient, path: str) -> list[str]:
    """Return the events that a list has, over all its pages."""
    found: list[str] = []
    target = path
    while target:
        page = await http.get(target)
        assert page.status_code == 200, page.text
        found += re.findall(r'<th scope="row" class="mono"><a [^>]*>(evt_\w+)<', page.text)
        following = re.search(r'href="([^"]+)" rel="next"', page.text)
        target = unescape(following[1]) if following else ""
    return found


async def test_lists_of_an_endpoint_have_every_row_once(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.VIEW)
    page = (await http.get("/webhooks")).text
    assert f'href="/webhooks/shop/dead" aria-label="{DEAD} dead events of shop">{DEAD}</a>' in page
    assert "removed" in page, "the settings do not name old-shop"
    dead = await rows(http, "/webhooks/shop/dead")
    assert (len(dead), len(set(dead))) == (DEAD, DEAD)
    attempts = await rows(http, "/webhooks/shop/attempts")
    assert (len(attempts), len(set(attempts))) == (DEAD + DELIVERED, DEAD + DELIVERED)
    assert await rows(http, f"/webhooks/shop/attempts?event={dead[0]}") == [dead[0]]
    assert (await http.get("/webhooks/other")).status_code == 409


async def test_no_page_has_a_secret(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    http = await console.client(AccessRole.OWN)
    for route in routes():
        if route.screen == "webhooks" and route.route.method == "GET":
            page = await http.get(route.path)
            assert page.status_code == 200, route
            assert WEBHOOK_SECRET not in page.text, route
            assert "secret-of-the-url" not in page.text, route
    assert "http://127.0.0.1:1/postroad" in (await http.get("/webhooks/shop")).text


async def test_only_an_operator_is_offered_the_acts(console: Console) -> None:
    await asyncio.to_thread(fill, console.engine)
    for role, offered in ((AccessRole.VIEW, False), (AccessRole.SEND, False), (AccessRole.OPERATE, True)):
        http = await console.client(role)
        page = (await http.get("/webhooks/shop")).text + (await http.get("/webhooks/shop/dead")).text
        for act in ("disable", "test", "resend", "redeliver", "replay"):
            assert (f"/webhooks/shop/{act}" in page) is offered, (role, act)
        refused = await http.post("/webhooks/shop/disable", data={"note": ""})
        assert (refused.status_code == 403) is not offered
    page = (await (await console.client(AccessRole.OPERATE)).get("/webhooks/old-shop")).text
    assert "do not name it any more" in page
    assert "/webhooks/old-shop/enable" not in page


async def test_dead_events_are_sent_again_with_the_ids_that_they_had(console: Console) -> None:
    async with a_shop(console.parts.context) as shop:
        http = await console.client(AccessRole.OPERATE, user="olga@example.com")
        shop.receiver.default = status("500 Oops")
        await shop.add(3)
        await shop.until_dead(3)
        page = (await http.get("/webhooks/shop")).text
        assert re.search(r'Dead</dt>\s*<dd><a href="/webhooks/shop/dead">3</a>', page)
        assert SECRET not in page
        assert URL_SECRET not in page
        dead = await rows(http, "/webhooks/shop/dead")
        action, shown = form_of(await http.get("/webhooks/shop/resend"))
        assert shown["shown"] == "3"
        await shop.add(1)
        await shop.until_dead(4)
        changed = await http.post(action, data=shown)
        assert changed.status_code == 409
        assert "has changed since" in changed.text
        shop.receiver.default = status("204 No Content")
        done = await press(http, "/webhooks/shop/resend")
        assert (done.status_code, done.headers["location"]) == (303, "/webhooks/shop")
        await shop.until_received(8)
        await shop.until_settled()
        assert (await shop.report()).dead == 0
        assert set(dead) < set(shop.receiver.ids[4:])
        [record] = console.audit()
        assert (record.actor, record.action, record.target) == ("olga@example.com", "webhook.resend", "shop")
        assert record.count == 4
        assert (await press(http, "/webhooks/shop/resend")).status_code == 303, "there are none, and nothing is sent"


async def test_one_event_is_sent_again_and_another_one_is_an_error(console: Console) -> None:
    async with a_shop(console.parts.context) as shop:
        http = await console.client(AccessRole.OPERATE)
        await shop.add(2)
        await shop.until_received(2)
        event = shop.receiver.ids[0]
        done = await press(http, f"/webhooks/shop/redeliver?event={event}")
        assert done.status_code == 303, done.text
        await shop.until_received(3)
        assert shop.receiver.ids.count(event) == 2
        unknown = await http.post("/webhooks/shop/redeliver", data={"event": "evt_unknown"})
        assert unknown.status_code == 409
        assert "has no event evt_unknown" in unknown.text
        assert [(record.action, record.target) for record in console.audit()] == [
            ("webhook.redeliver", f"shop: {event}")
        ]


async def test_a_replay_says_how_many_it_reads_again(console: Console) -> None:
    now = console.parts.now()
    async with a_shop(console.parts.context) as shop:
        http = await console.client(AccessRole.OPERATE)
        for hours in (5, 3, 1):
            await shop.add(2, now - timedelta(hours=hours))
        await shop.until_received(6)
        since = (now - timedelta(hours=4)).astimezone(console.parts.zone)
        path = f"/webhooks/shop/replay?since={since:%Y-%m-%dT%H:%M}"
        asked = await http.get(path)
        assert ">4<" in asked.text
        done = await press(http, path)
        assert done.status_code == 303, done.text
        await shop.feed()
        await shop.until_received(10)
        assert sorted(shop.receiver.ids[6:]) == sorted(shop.receiver.ids[2:6])
        [record] = console.audit()
        assert (record.action, record.target, record.count) == ("webhook.replay", "shop", 4)
        for wrong in ("", "yesterday", "9" * 40, "0001-01-01T00:00"):
            answer = await http.get("/webhooks/shop/replay", params={"since": wrong})
            assert answer.status_code == 422, wrong


async def test_an_endpoint_is_disabled_for_a_reason_and_enabled_again(console: Console) -> None:
    async with a_shop(console.parts.context) as shop:
        http = await console.client(AccessRole.OPERATE)
        assert (await press(http, "/webhooks/shop/disable", note="the shop moves")).status_code == 303
        await shop.add(2)
        page = (await http.get("/webhooks/shop")).text
        assert "by operate@example.com in the console: the shop moves" in page
        assert (await press(http, "/webhooks/shop/enable")).status_code == 303
        await shop.feed()
        await shop.until_received(2)
        assert [(record.action, record.note) for record in console.audit()] == [
            ("webhook.enable", ""),
            ("webhook.disable", "the shop moves"),
        ]


async def test_a_test_event_shows_the_response(console: Console) -> None:
    async with a_shop(console.parts.context) as shop:
        http = await console.client(AccessRole.OPERATE)
        done = await press(http, "/webhooks/shop/test")
        assert "shop accepted the test event with status 204" in (await http.get(done.headers["location"])).text
        shop.receiver.default = status("500 Oops")
        failed = await press(http, "/webhooks/shop/test")
        assert (
            "did not accept the test event: rejected with status 500"
            in (await http.get(failed.headers["location"])).text
        )
        assert [record.action for record in console.audit()] == ["webhook.test"] * 2
