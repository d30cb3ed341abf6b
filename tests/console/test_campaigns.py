"""The pages of campaigns: every number leads to its rows, and an act says first how many it touches."""

from __future__ import annotations

import re
from html import unescape

import httpx
import pytest
import sqlalchemy as sa

from postroad.settings import AccessRole
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import LIVE, TouchState
from tests.console.kit import Console, press
from tests.console.pages import HOSTILE
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch


@pytest.fixture
def spring(engine: sa.Engine) -> dict[TouchState, int]:
    """A running campaign of one step, with a different number of messages in each state."""
    counts = {state: number for number, state in enumerate(TouchState, start=1)}
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring", launched_at=NOW)
        for state, number in counts.items():
            for _ in range(number):
                add_touch(connection, campaign, step, state, recipient_id=add_recipient(connection))
    return counts


def state_of(engine: sa.Engine, name: str) -> CampaignState:
    with read(engine) as connection:
        row = connection.execute(sa.text("SELECT state FROM campaign WHERE name = :name"), {"name": name})
        return CampaignState(row.scalar_one())


def links(page: httpx.Response, within: str) -> dict[str, int]:
    """The links whose address contains a text, with the number that each shows."""
    found = re.findall(r'<a class="num" href="([^"]+)"[^>]*>([\d,]+)</a>', page.text)
    return {unescape(href): int(number.replace(",", "")) for href, number in found if within in href}


async def listed_rows(http: httpx.AsyncClient, href: str) -> int:
    """Count the rows of a list, over all its pages."""
    total, target = 0, href
    while target:
        page = await http.get(target)
        assert page.status_code == 200, page.text
        total += len(re.findall(r'<th scope="row"><a href="/why', page.text))
        following = re.search(r'href="([^"]+)" rel="next"', page.text)
        target = unescape(following[1]) if following else ""
    return total


async def test_every_number_of_a_campaign_leads_to_so_many_rows(
    console: Console, spring: dict[TouchState, int]
) -> None:
    http = await console.client(AccessRole.VIEW)
    page = await http.get("/campaigns/spring")
    assert page.status_code == 200
    numbers = links(page, "/campaigns/spring/messages?")
    by_state = {re.search(r"state=(\w+)", href)[1]: number for href, number in numbers.items() if "step=" in href}  # type: ignore[index]
    assert by_state == {state.value: number for state, number in spring.items()}
    for href, number in numbers.items():
        assert await listed_rows(http, href) == number, href


async def test_lists_longer_than_a_page_continue(console: Console, engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="long", launched_at=NOW)
        for _ in range(120):
            add_touch(connection, campaign, step, TouchState.ACCEPTED, recipient_id=add_recipient(connection))
    http = await console.client(AccessRole.VIEW)
    assert await listed_rows(http, "/campaigns/long/messages?state=accepted") == 120


async def test_the_list_of_campaigns_filters_by_state(console: Console, engine: sa.Engine) -> None:
    with write(engine) as connection:
        add_campaign(connection, name="spring")
        add_campaign(connection, name="autumn", state=CampaignState.DRAFT)
    http = await console.client(AccessRole.VIEW)
    everything, drafts = await http.get("/campaigns"), await http.get("/campaigns?state=draft")
    assert "/campaigns/spring" in everything.text
    assert "/campaigns/autumn" in everything.text
    assert "/campaigns/spring" not in drafts.text
    assert "/campaigns/autumn" in drafts.text
    assert (await http.get("/campaigns?state=asleep")).status_code == 422


async def test_a_pause_says_how_many_wait_and_is_recorded(
    console: Console, engine: sa.Engine, spring: dict[TouchState, int]
) -> None:
    waiting = sum(spring[state] for state in LIVE)
    http = await console.client(AccessRole.SEND, user="carl@example.com")
    asked = await http.get("/campaigns/spring/pause")
    counts = {
        href.partition("state=")[2]: number for href, number in links(asked, "/campaigns/spring/messages").items()
    }
    assert counts == {state.value: spring[state] for state in LIVE if spring[state]}, "each number leads to its rows"
    assert f">{waiting}<" in asked.text
    assert state_of(engine, "spring") is CampaignState.RUNNING, "a GET changes nothing"

    done = await http.post("/campaigns/spring/pause", data={"note": "wrong price"})
    assert (done.status_code, done.headers["location"]) == (303, "/campaigns/spring")
    assert state_of(engine, "spring") is CampaignState.PAUSED
    record = console.audit()[0]
    assert (record.action, record.target, record.count, record.note) == (
        "campaign.pause",
        "spring",
        waiting,
        "wrong price",
    )
    assert record.actor == "carl@example.com"
    assert "carl@example.com in the console: wrong price" in (await http.get("/campaigns/spring")).text

    again = await http.post("/campaigns/spring/pause", data={"note": ""})
    assert again.status_code == 409
    assert [each.action for each in console.audit()].count("campaign.pause") == 1, "nothing was done, so nothing stands"

    assert (await http.post("/campaigns/spring/resume")).status_code == 303
    assert state_of(engine, "spring") is CampaignState.RUNNING
    assert console.audit()[0].action == "campaign.resume"


async def test_a_recall_names_what_it_cannot_stop(
    console: Console, engine: sa.Engine, spring: dict[TouchState, int]
) -> None:
    http = await console.client(AccessRole.OPERATE)
    asked = links(await http.get("/campaigns/spring/recall?step=step-1"), "/campaigns/spring/messages")
    shown = {re.search(r"state=(\w+)", href)[1]: number for href, number in asked.items()}  # type: ignore[index]
    assert shown["accepted"] == spring[TouchState.ACCEPTED]
    assert shown["unknown"] == spring[TouchState.UNKNOWN]
    done = await http.post("/campaigns/spring/recall", data={"note": ""})
    assert done.status_code == 303, done.text
    assert state_of(engine, "spring") is CampaignState.CANCELLED
    assert console.audit()[0].action == "campaign.recall"


async def test_a_step_is_recalled_for_a_reason_by_who_may(
    console: Console, engine: sa.Engine, spring: dict[TouchState, int]
) -> None:
    sender = await console.client(AccessRole.SEND)
    assert "/campaigns/spring/recall" not in (await sender.get("/campaigns/spring")).text
    assert (await sender.get("/campaigns/spring/recall")).status_code == 403
    assert (await sender.post("/campaigns/spring/recall", data={"note": ""})).status_code == 403
    http = await console.client(AccessRole.OPERATE, user="olga@example.com")
    too_long = await http.post("/campaigns/spring/recall?step=step-1", data={"note": "x" * 301})
    assert (too_long.status_code, console.audit()) == (422, [])
    assert (await http.post("/campaigns/spring/recall?step=other", data={"note": ""})).status_code == 409
    done = await press(http, "/campaigns/spring/recall?step=step-1", note="wrong price")
    assert (done.status_code, done.headers["location"]) == (303, "/campaigns/spring")
    assert state_of(engine, "spring") is CampaignState.RUNNING, "the other steps continue"
    [record] = console.audit()
    waiting = sum(spring[state] for state in LIVE)
    assert (record.actor, record.action, record.target) == (
        "olga@example.com",
        "campaign.recall",
        "spring, step step-1",
    )
    assert (record.count, record.note) == (waiting, "wrong price")


async def test_a_name_that_no_campaign_has_is_an_error_page(console: Console) -> None:
    http = await console.client(AccessRole.OPERATE)
    for path in ("", "/messages?state=accepted", "/recipients?state=active", "/delays", "/pause", "/recall"):
        page = await http.get(f"/campaigns/nothing{path}")
        assert page.status_code == 409, path
        assert "nothing" in page.text


async def test_names_and_replies_of_strangers_are_shown_as_text(console: Console, engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring", launched_at=NOW)
        touch = add_touch(connection, campaign, step, TouchState.DEFERRED, recipient_id=add_recipient(connection))
        connection.execute(sa.text("UPDATE touch SET reply = :reply WHERE id = :id"), {"reply": HOSTILE, "id": touch})
    page = await (await console.client(AccessRole.VIEW)).get("/campaigns/spring/messages?state=deferred")
    assert "&lt;script&gt;alert(1)" in page.text
    assert "<script>alert(1)" not in page.text


async def test_the_page_of_an_error_keeps_the_menu_and_leads_back(
    console: Console, spring: dict[TouchState, int]
) -> None:
    http = await console.client(AccessRole.SEND)
    asked = "/campaigns/spring/resume"
    refused = await http.post(asked, headers={"Referer": console.url + asked}, data={"note": ""})
    assert refused.status_code == 409
    assert 'aria-label="Screens"' in refused.text
    assert f'<a href="{asked}">Back</a>' in refused.text
    for other in ("https://evil.example/campaigns", "http://evil.example", "", "javascript:alert(1)"):
        page = await http.post(asked, headers={"Referer": other}, data={"note": ""})
        assert "evil" not in page.text
        assert '<a href="/">To the first page</a>' in page.text
