"""postroad webhook and postroad events, as a person and a script use them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroad.embedded import stop_redis
from postroad.store.engine import open_engine, sqlite_url, write
from postroad.store.event_stream import message_id, newest_event
from postroad.store.webhook_out import NewDelivery, add_deliveries, add_endpoint
from tests.cli.site import Site
from tests.events_out.events import add_events, add_sent_touch
from tests.events_out.receiver import SECRET, receiving, status
from tests.store.rows import NOW

SETTINGS = """
[webhooks_out.shop]
url = "http://127.0.0.1:{port}/hooks"
allow_networks = ["127.0.0.0/8"]
timeout_ms = "2s"
"""


@pytest.fixture
def site(tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "postroad.toml").write_text(SETTINGS.format(port=unused_port))
    site = Site(tmp_path)
    site.environment["POSTROAD_WEBHOOKS_OUT__SHOP__SECRET"] = SECRET
    assert site.run("db", "upgrade").returncode == 0
    engine = open_engine(sqlite_url(tmp_path / ".postroad"))
    with write(engine) as connection:
        add_endpoint(connection, "shop", 0, NOW)
        add_events(connection, add_sent_touch(connection), 3, uid="one")
        add_deliveries(connection, "shop", 0, [NewDelivery(newest_event(connection), message_id("one"))], NOW)
    engine.dispose()
    yield site
    stop_redis(tmp_path / ".postroad")


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run(site: Site, *words: str) -> Any:
    done = site.run(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_a_test_event_shows_the_response(site: Site, unused_port: int) -> None:
    async with receiving(port=unused_port) as receiver:
        done = await asyncio.to_thread(site.run, "webhook", "send-test", "shop", "--json")
        assert done.returncode == 0, done.stderr
        [(headers, body)] = receiver.requests
        assert json.loads(done.stdout)["event"] == headers["webhook-id"]
        assert body["type"] == "postroad.test"
        receiver.default = status("500 Oops", body="no room")
        failed = await asyncio.to_thread(site.run, "webhook", "send-test", "shop")
        assert failed.returncode == 6
        assert "no room" in failed.stdout
    log = await asyncio.to_thread(run, site, "webhook", "log", "shop")
    assert [row["outcome"] for row in log] == ["rejected", "delivered"]


def test_an_endpoint_is_listed_disabled_enabled_and_replayed(site: Site) -> None:
    [listed] = run(site, "webhook", "list")
    assert (listed["name"], listed["status"], listed["waiting"]) == ("shop", "enabled", 1)
    assert listed["lag_s"] > 0
    assert run(site, "webhook", "disable", "shop", "--why", "moving") == {
        "endpoint": "shop",
        "status": "disabled",
        "changed": True,
    }
    assert "disabled: moving" in site.run("webhook", "list").stdout
    assert run(site, "webhook", "enable", "shop") == {"endpoint": "shop", "status": "enabled", "changed": True}
    assert "was enabled before" in site.run("webhook", "enable", "shop").stdout
    event = message_id("one")
    assert run(site, "webhook", "redeliver", "shop", event) == {"redelivered": 1}
    unknown = site.run("webhook", "redeliver", "shop", event, "evt_none")
    assert unknown.returncode == 7
    assert "Nothing was sent" in unknown.stderr
    assert run(site, "webhook", "replay", "shop", "--since", "3650d") == {"after": 0, "until": 0}
    assert site.run("webhook", "replay", "shop", "--since", "yesterday").returncode == 2


def test_a_secret_is_made_and_accepted(site: Site) -> None:
    made = run(site, "webhook", "secret")
    site.environment["POSTROAD_WEBHOOKS_OUT__SHOP__SECRET"] = made["secret"]
    assert site.run("webhook", "list").returncode == 0
    site.environment["POSTROAD_WEBHOOKS_OUT__SHOP__SECRET"] = "whsec_dG9vIHNob3J0"
    refused = site.run("webhook", "list")
    assert refused.returncode == 3
    assert "webhook secret" in refused.stderr
    assert "dG9vIHNob3J0" not in refused.stderr


def test_events_are_exported_and_continued(site: Site) -> None:
    first = run(site, "events", "export", "--since", "3650d", "--to", "one.ndjson")
    assert first["events"] == 1
    lines = (site.folder / "one.ndjson").read_text().splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["message.accepted"]
    again = run(site, "events", "export", "--after", str(first["cursor"]), "--to", "two.parquet", "--format", "parquet")
    assert again == {"events": 0, "cursor": first["cursor"], "file": "two.parquet"}
    assert site.run("events", "export", "--to", "x").returncode == 2
    beyond = site.run("events", "export", "--after", "4711", "--to", "x")
    assert beyond.returncode == 2
    assert "beyond the last event" in beyond.stderr
    assert not (site.folder / "x").exists()
