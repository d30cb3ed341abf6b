"""Undecided messages: each number leads to its rows, and a decision reaches the ledger, the queue and the audit log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from postroad.app.undecided import Decision
from postroad.delivery.job import job_id
from postroad.queue import ClaimedJob, Dead, JobState, Queue, Uncertain
from postroad.settings import AccessRole
from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from postroad.store.ledger import UNDECIDED, TouchState
from tests.console.kit import Console, open_console
from tests.console.pages import HOSTILE
from tests.console.test_campaigns import links, listed_rows
from tests.delivery.queue_of_touches import claim, noted, queued_touches, recorder, set_state, state_of
from tests.store.rows import NOW, add_campaign, add_touch

LOST, BROKEN = "connection lost", "template <b>broken</b>"


async def settled(console: Console, number: int, verdict: Uncertain | Dead) -> tuple[Queue, list[int]]:
    """Messages of which a worker reports this, in the ledger and in the queue."""
    queue = await console.parts.queue()
    touches = await queued_touches(console.engine, queue, number)
    jobs: Sequence[ClaimedJob] = await claim(queue)
    for touch in touches:
        set_state(console.engine, touch, TouchState.SENDING)
    await queue.settle("w", [(job, verdict) for job in jobs])
    await recorder(console.engine, queue).drain()
    return queue, touches


def hidden(page: httpx.Response) -> dict[str, str]:
    """The values that the form of a page carries."""
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text)
    return {name: unescape(value) for name, value in found if name != "next"}


async def decide(http: httpx.AsyncClient, path: str, note: str = "") -> httpx.Response:
    """Open the page before an act, and press its button."""
    page = await http.get(path)
    assert page.status_code == 200, page.text
    return await http.post(path.partition("?")[0], data={**hidden(page), "note": note})


async def test_every_number_leads_to_so_many_rows(console: Console, engine: sa.Engine) -> None:
    http = await console.client(AccessRole.VIEW)
    assert "No message needs a decision." in (await http.get("/undecided")).text
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring")
        ended, (its,) = add_campaign(connection, name="ended", state=CampaignState.CANCELLED)
        for state in UNDECIDED:
            for cause, number in (("", 2), (LOST, 60), (HOSTILE[:90], 3)):
                for _ in range(number):
                    touch = add_touch(connection, campaign, step, state, settled_at=NOW)
                    values = {"cause": cause, "id": touch, "reply": HOSTILE}
                    statement = sa.text("UPDATE touch SET cause = :cause, reply = :reply WHERE id = :id")
                    connection.execute(statement, values)
        add_touch(connection, ended, its, TouchState.DEAD)
    page = await http.get("/undecided")
    numbers = links(page, "/undecided/messages?")
    assert sorted(numbers.values()) == [2, 2, 3, 3, 60, 60]
    for href, number in numbers.items():
        assert await listed_rows(http, href) == number, href
    assert page.text.count(">65<") == 2, "the totals"
    assert "/decide" not in page.text, "a user who may only view is offered no act"
    assert "<script>alert(1)" not in page.text + (await http.get(next(iter(numbers)))).text


@pytest.mark.parametrize(
    ("state", "decision", "ledger", "job"),
    [
        (TouchState.UNKNOWN, Decision.DELIVERED, TouchState.ACCEPTED, None),
        (TouchState.UNKNOWN, Decision.SEND_AGAIN, TouchState.QUEUED, JobState.QUEUED),
        (TouchState.UNKNOWN, Decision.DROP, TouchState.CANCELLED, JobState.REMEMBERED),
        (TouchState.DEAD, Decision.SEND_AGAIN, TouchState.QUEUED, JobState.QUEUED),
        (TouchState.DEAD, Decision.DROP, TouchState.CANCELLED, JobState.REMEMBERED),
    ],
)
async def test_a_decision_is_for_one_message_or_for_all_of_a_cause(
    console: Console, state: TouchState, decision: Decision, ledger: TouchState, job: JobState | None
) -> None:
    verdict = Uncertain(cause=LOST) if state is TouchState.UNKNOWN else Dead(cause=BROKEN, error="no such name")
    queue, touches = await settled(console, 4, verdict)
    http = await console.client(AccessRole.OPERATE, user="carl")

    one = await decide(http, f"/messages/{touches[0]}/decide?decision={decision}", note="seen in their log")
    assert (one.status_code, one.headers["location"]) == (303, f"/why?q={touches[0]}")
    assert [state_of(console.engine, touch) for touch in touches] == [ledger, state, state, state]

    overview = (await http.get("/undecided")).text
    path = next(
        unescape(href)
        for href in re.findall(r'href="(/undecided/decide\?[^"]+)"', overview)
        if f"decision={decision}" in href
    )
    page = await http.get(path)
    assert re.search(r"<dd><a[^>]*>3</a></dd>", page.text), "how many it touches is shown before"
    done = await decide(http, path)
    assert (done.status_code, done.headers["location"]) == (303, "/undecided")
    await recorder(console.engine, queue).drain()
    assert {state_of(console.engine, touch) for touch in touches} == {ledger}
    assert set(await queue.states([job_id(touch) for touch in touches])) == {job}

    every, first = console.audit()[:2]
    assert (every.actor, every.action, every.count) == ("carl", f"message.{decision}", 3)
    assert every.target == f"{state}: {verdict.cause}"
    assert (first.target, first.count, first.note) == (str(touches[0]), 1, "seen in their log")
    if decision is not Decision.SEND_AGAIN or state is TouchState.UNKNOWN:
        notes = [str(words) for _, cause, words in noted(console.engine, touches[0]) if cause == "resolved"]
        assert any("by carl in the console: seen in their log" in note for note in notes)


async def test_what_is_decided_is_refused_and_what_failed_later_is_not_touched(console: Console) -> None:
    _, (touch, other) = await settled(console, 2, Uncertain(cause=LOST))
    http = await console.client(AccessRole.OPERATE)
    page = await http.get(f"/undecided/decide?state=unknown&cause={LOST}&decision=delivered")
    with write(console.engine) as connection:
        later = sa.text("UPDATE touch SET settled_at = '2999-01-01 00:00:00' WHERE id = :id")
        connection.execute(later, {"id": other})
    assert (await http.post("/undecided/decide", data=hidden(page))).status_code == 303
    assert [state_of(console.engine, each) for each in (touch, other)] == [TouchState.ACCEPTED, TouchState.UNKNOWN]
    assert console.audit()[0].count == 1
    for refused in (touch, 999_999):
        assert (await http.get(f"/messages/{refused}/decide?decision=drop")).status_code == 409
        assert (await http.post(f"/messages/{refused}/decide", data={"decision": "drop"})).status_code == 409
    for path, data in (
        ("/undecided/decide", {"cause": LOST}),
        ("/undecided/decide", {**hidden(page), "state": "accepted"}),
        ("/undecided/decide", {**hidden(page), "state": "dead"}),
        ("/undecided/decide", {**hidden(page), "until": "now"}),
        ("/undecided/decide", {**hidden(page), "note": "x" * 301}),
        (f"/messages/{other}/decide", {"note": ""}),
        (f"/messages/{other}/decide", {"decision": "drop", "note": "x" * 301}),
    ):
        assert (await http.post(path, data=data)).status_code == 422, (path, data)
    assert (await http.get("/undecided/messages?state=accepted")).status_code == 422
    assert (await http.get("/undecided/decide?state=dead&decision=delivered")).status_code == 422
    assert (await http.get("/undecided/uncertain?queue=other")).status_code == 422
    elsewhere = {"decision": "drop", "back": "//evil.example/"}
    assert (await http.post(f"/messages/{other}/decide", data=elsewhere)).headers["location"] == "/"


async def test_a_job_whose_end_is_not_recorded_yet_is_listed_and_decided(console: Console) -> None:
    queue = await console.parts.queue()
    [touch] = await queued_touches(console.engine, queue, 1)
    [job] = await claim(queue)
    set_state(console.engine, touch, TouchState.SENDING)
    await queue.settle("w", [(job, Uncertain(cause=LOST))])
    http = await console.client(AccessRole.OPERATE)
    page = await http.get("/undecided")
    assert links(page, "/undecided/uncertain") == {"/undecided/uncertain?queue=email%3Asend": 1}
    listed = await http.get("/undecided/uncertain?queue=email:send")
    assert len(re.findall(r'<th scope="row"><a href="/why', listed.text)) == 1
    href = next(
        unescape(found) for found in re.findall(r'href="(/messages/[^"]+)"', listed.text) if "delivered" in found
    )
    done = await decide(http, href)
    assert done.headers["location"].startswith("/undecided/uncertain")
    await recorder(console.engine, queue).drain()
    assert state_of(console.engine, touch) is TouchState.ACCEPTED
    assert await queue.states([job_id(touch)]) == [None]
    assert "No job of this queue is uncertain." in (await http.get("/undecided/uncertain")).text


async def test_the_ledger_is_shown_while_the_queue_is_unavailable(engine: sa.Engine, tmp_path: Path) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring")
        touch = add_touch(connection, campaign, step, TouchState.DEAD, settled_at=NOW)
    async with open_console(engine, "redis://127.0.0.1:1/0", tmp_path / "state") as console:
        http = await console.client(AccessRole.OPERATE)
        page = await http.get("/undecided")
        assert page.status_code == 200
        assert "Uncertain jobs" in page.text
        assert list(links(page, "/undecided/messages").values()) == [1]
        assert (await http.post(f"/messages/{touch}/decide", data={"decision": "drop"})).status_code == 503
        assert state_of(engine, touch) is TouchState.DEAD
        assert console.audit()[:1] == []
