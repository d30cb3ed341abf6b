"""From an address, a Message-ID or a number to the reason why a message has not left."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from postroad.delivery.job import job_id
from postroad.settings import AccessRole
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from tests.console.kit import Console
from tests.console.pages import HOSTILE
from tests.delivery.queue_of_touches import queued_touches
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch


@pytest.fixture
def message(engine: sa.Engine) -> int:
    """A message that waits in a paused campaign."""
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring", state=CampaignState.PAUSED, launched_at=NOW)
        recipient = add_recipient(connection, "ada@example.com")
        touch = add_touch(connection, campaign, step, TouchState.DEFERRED, recipient_id=recipient)
        values = {"reply": f"451 4.7.1 {HOSTILE}", "id": touch}
        connection.execute(sa.text("UPDATE touch SET reply = :reply WHERE id = :id"), values)
    return touch


def state_of(engine: sa.Engine, touch: int) -> str:
    with read(engine) as connection:
        return str(connection.execute(sa.text("SELECT state FROM touch WHERE id = :id"), {"id": touch}).scalar_one())


async def test_an_address_and_a_number_lead_to_what_holds_the_message(console: Console, message: int) -> None:
    http = await console.client(AccessRole.VIEW)
    for subject in ("ada@example.com", " Ada@example.com ", str(message)):
        page = await http.get("/why", params={"q": subject})
        assert "/cancel" not in page.text, "who may only view is not offered an act"
        assert page.status_code == 200, page.text
        assert "ada@example.com" in page.text
        assert "spring" in page.text
        assert "paused" in page.text
        assert "<script>alert(1)" not in page.text


async def test_an_unknown_subject_is_an_answer_with_a_remedy(console: Console, message: int) -> None:
    http = await console.client(AccessRole.VIEW)
    for subject in ("bob@example.com", "999999", "not an address", HOSTILE):
        page = await http.get("/why", params={"q": subject})
        assert page.status_code == 404, subject
        assert "Nothing is found" in page.text
        assert "<script>alert(1)" not in page.text
    assert (await http.get("/why")).status_code == 200


async def test_a_message_that_waits_is_cancelled_and_recorded(
    console: Console, engine: sa.Engine, message: int
) -> None:
    http = await console.client(AccessRole.OPERATE, user="carl")
    assert f"/messages/{message}/cancel" in (await http.get("/why?q=ada@example.com")).text
    assert (await http.get(f"/messages/{message}/cancel")).status_code == 200
    assert state_of(engine, message) == "deferred"
    done = await http.post(f"/messages/{message}/cancel", data={"q": "ada@example.com"})
    assert (done.status_code, done.headers["location"]) == (303, "/why?q=ada%40example.com")
    assert state_of(engine, message) == "cancelled"
    record = console.audit()[0]
    assert (record.actor, record.action, record.target, record.count) == ("carl", "message.cancel", str(message), 1)
    again = await http.post(f"/messages/{message}/cancel", data={"q": ""})
    assert again.status_code == 409
    assert [each.action for each in console.audit()].count("message.cancel") == 1
    assert (await http.post("/messages/999999/cancel", data={"q": ""})).status_code == 409


async def test_a_scheduled_message_is_rescheduled_and_recorded(console: Console) -> None:
    queue = await console.parts.queue()
    [touch] = await queued_touches(console.engine, queue, 1, due_ms=4_000_000_000_000)
    http = await console.client(AccessRole.OPERATE, user="carl")
    path = f"/messages/{touch}/reschedule"
    assert path in (await http.get(f"/why?q={touch}")).text
    asked = await http.get(path)
    assert "Europe/Berlin" in asked.text
    now = console.parts.now()
    for wrong in ("", "soon", "2001-01-01T00:00", f"{now.year + 2}-01-01T00:00", "9999-12-31T23:59"):
        refused = await http.post(path, data={"at": wrong})
        assert (refused.status_code, "Choose a" in refused.text) == (422, True), wrong
    assert (await queue.find(job_id(touch))).at_ms == 4_000_000_000_000
    at = (now + timedelta(days=3)).astimezone(ZoneInfo("Europe/Berlin")).replace(second=0, microsecond=0)
    done = await http.post(path, data={"at": f"{at:%Y-%m-%dT%H:%M}", "q": "ada@example.com"})
    assert (done.status_code, done.headers["location"]) == (303, "/why?q=ada%40example.com")
    assert (await queue.find(job_id(touch))).at_ms == int(at.timestamp() * 1000)
    record = console.audit()[0]
    assert (record.actor, record.action, record.target, record.count) == ("carl", "message.reschedule", str(touch), 1)
    assert at.isoformat() in record.note


async def test_a_message_that_is_not_scheduled_keeps_its_time(console: Console, message: int) -> None:
    http = await console.client(AccessRole.OPERATE)
    at = console.parts.now() + timedelta(days=3)
    await http.post(f"/messages/{message}/reschedule", data={"at": f"{at:%Y-%m-%dT%H:%M}"})
    assert "is not scheduled" in (await http.get(f"/why?q={message}")).text
    assert (await http.get("/messages/999999/reschedule")).status_code == 200
    gone = await http.post("/messages/999999/reschedule", data={"at": f"{at:%Y-%m-%dT%H:%M}"})
    assert gone.status_code == 409


async def test_an_undecided_message_offers_its_decisions(console: Console, message: int) -> None:
    operator, viewer = await console.client(AccessRole.OPERATE), await console.client(AccessRole.VIEW)
    for state, offered in (("unknown", 3), ("dead", 2), ("accepted", 0)):
        with write(console.engine) as connection:
            values = {"state": state, "id": message}
            connection.execute(sa.text("UPDATE touch SET state = :state WHERE id = :id"), values)
        page = (await operator.get(f"/why?q={message}")).text
        assert page.count(f"/messages/{message}/decide?") == offered, state
        assert "/cancel" not in page
        assert "/decide" not in (await viewer.get(f"/why?q={message}")).text
