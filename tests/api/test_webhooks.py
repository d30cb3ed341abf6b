"""Endpoints that get events, by the API: what they got, and what is sent again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import sqlalchemy as sa

from postroad.settings import AccessRole
from postroad.store.engine import read
from tests.api.server import ApiServer
from tests.events_out.receiver import SECRET, status
from tests.events_out.shop import URL_SECRET, a_shop


def audited(api: ApiServer) -> list[tuple[str, str, int | None, str]]:
    statement = "SELECT action, target, count, note FROM audit_record ORDER BY id"
    with read(api.installation.engine) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


async def listed(http: httpx.AsyncClient, path: str, **parameters: str) -> list[dict[str, Any]]:
    """Return all items of a list, two at a time."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await http.get(path, params={"limit": 2, **parameters, **cursor})
        assert answer.status_code == 200, answer.text
        assert SECRET not in answer.text
        assert URL_SECRET not in answer.text
        found += answer.json()["items"]
        if answer.json()["next"] is None:
            return found
        cursor = {"cursor": answer.json()["next"]}


async def test_endpoints_their_log_and_their_dead_events_are_listed(api: ApiServer) -> None:
    async with a_shop(api.installation.context) as shop, api.client(AccessRole.VIEW) as http:
        shop.receiver.default = status("500 Oops")
        await shop.add(3)
        await shop.until_dead(3)
        shop.receiver.default = status("204 No Content")
        await shop.add(2)
        await shop.until_received(5)
        await shop.until_settled()
        answer = await http.get("/webhooks")
        [endpoint] = answer.json()["items"]
        assert (endpoint["name"], endpoint["status"], endpoint["dead"]) == ("shop", "enabled", 3)
        assert endpoint["url"] == shop.receiver.url
        assert SECRET not in answer.text
        assert URL_SECRET not in answer.text
        attempts = await listed(http, "/webhooks/shop/attempts")
        assert [row["status"] for row in attempts] == [204, 204, 500, 500, 500]
        assert len({row["id"] for row in attempts}) == 5
        dead = await listed(http, "/webhooks/shop/dead")
        assert {row["event"] for row in dead} == {row["event"] for row in attempts[2:]}
        assert {row["last"]["status"] for row in dead} == {500}
        of_one = await listed(http, "/webhooks/shop/attempts", event=dead[0]["event"])
        assert [row["event"] for row in of_one] == [dead[0]["event"]]
        for path in ("attempts", "dead"):
            assert (await http.get(f"/webhooks/other/{path}")).status_code == 404
        for act in ("redeliver", "dead/resend", "replay", "disable", "enable", "test"):
            assert (await http.post(f"/webhooks/shop/{act}", json={})).status_code == 403, act


async def test_events_are_sent_again_one_by_one_or_all_that_are_dead(api: ApiServer) -> None:
    async with a_shop(api.installation.context) as shop, api.client(AccessRole.OPERATE) as http:
        shop.receiver.default = status("500 Oops")
        await shop.add(3)
        await shop.until_dead(3)
        shop.receiver.default = status("204 No Content")
        event = shop.receiver.ids[0]
        once = await http.post("/webhooks/shop/redeliver", json={"events": [event, event]})
        assert (once.status_code, once.json()) == (200, {"endpoint": "shop", "events": 1})
        await shop.until_received(4)
        unknown = await http.post("/webhooks/shop/redeliver", json={"events": [event, "evt_unknown"]})
        assert unknown.status_code == 409
        again = await http.post("/webhooks/shop/dead/resend")
        assert again.json() == {"endpoint": "shop", "events": 3}
        await shop.until_received(7)
        await shop.until_settled()
        assert (await shop.report()).dead == 0
        assert (await http.post("/webhooks/shop/dead/resend")).json()["events"] == 0
        assert (await http.post("/webhooks/other/dead/resend")).status_code == 404
    assert audited(api) == [
        ("webhook.redeliver", f"shop: {event}", 1, ""),
        ("webhook.resend", "shop", 3, ""),
        ("webhook.resend", "shop", 0, ""),
    ]


async def test_a_program_replays_disables_enables_and_tests(api: ApiServer) -> None:
    now = api.installation.context.clock.now()
    async with a_shop(api.installation.context) as shop, api.client(AccessRole.OPERATE) as http:
        for hours in (5, 3):
            await shop.add(2, now - timedelta(hours=hours))
        await shop.until_received(4)
        since = (now - timedelta(hours=4)).isoformat()
        replayed = await http.post("/webhooks/shop/replay", json={"since": since})
        assert (replayed.status_code, replayed.json()["recorded_events"]) == (200, 2), replayed.text
        await shop.feed()
        await shop.until_received(6)
        assert (await http.post("/webhooks/shop/replay", json={"since": "yesterday"})).status_code == 422
        disabled = (await http.post("/webhooks/shop/disable", json={"reason": "it moves"})).json()
        assert (disabled["status"], disabled["changed"]) == ("disabled", True)
        assert (await shop.report()).disabled_for == "by key key-operate: it moves"
        tested = (await http.post("/webhooks/shop/test")).json()
        assert (tested["outcome"], tested["status"]) == ("delivered", 204)
        enabled = (await http.post("/webhooks/shop/enable")).json()
        assert (enabled["status"], enabled["changed"]) == ("enabled", True)
        assert (await http.post("/webhooks/shop/enable")).json()["changed"] is False
    assert [(action, count, note) for action, _, count, note in audited(api)[1:]] == [
        ("webhook.disable", 1, "it moves"),
        ("webhook.test", None, ""),
        ("webhook.enable", 1, ""),
        ("webhook.enable", 0, ""),
    ]
