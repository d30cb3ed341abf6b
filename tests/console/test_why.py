"""From an address, a Message-ID or a number to the reason why a message has not left."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from postroad.settings import AccessRole
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from tests.console.kit import Console
from tests.console.pages import HOSTILE
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
