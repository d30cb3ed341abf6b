"""A journey with branches, an exit and a goal, from its file to mail that a provider accepted."""

from __future__ import annotations

from collections import Counter

import pytest
import sqlalchemy as sa

from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.types import JSON_OBJECT
from tests.end_to_end.site import Site
from tests.kit.waiting import until

pytestmark = pytest.mark.timeout(180)

JOURNEY = """
name: trial
sender: ada
audience: {name: readers, file: readers.csv}
exit: "first_name = 'Paid'"
goal: "first_name = 'Paid'"
steps:
  - {email: hello, subject: "Hello {{ first_name }}", text: hello.txt}
  - wait: 1s
  - if: "first_name = 'Reader 0'"
    then:
      - {email: first, subject: "You were first", text: hello.txt}
    else:
      - {email: other, subject: "Hello again", text: hello.txt}
"""


async def test_people_get_the_emails_of_their_branch_and_who_matches_the_exit_gets_no_more(site: Site) -> None:
    addresses = ["a@mailbox.example", "b@mailbox.example", "gone+550-5.1.1@mailbox.example", "d@mailbox.example"]
    await site.launch(addresses, JOURNEY)
    site.start("recorder")
    site.start("worker")
    assert await site.until_settled() == {TouchState.ACCEPTED: 3, TouchState.BOUNCED: 1}
    await pay(site, "d@mailbox.example")

    async def finished() -> bool:
        site.run("advance")
        return (await site.summary()).state == "finished"

    await until(finished, within_s=60)
    assert set(site.received().values()) == {1}
    counts = {step.name: {state: n for state, n in step.counts.items() if n} for step in (await site.summary()).steps}
    assert counts == {
        "hello": {TouchState.ACCEPTED: 3, TouchState.BOUNCED: 1},
        "first": {TouchState.ACCEPTED: 1},
        "other": {TouchState.ACCEPTED: 1},
    }
    sent = Counter(message.recipient for message in site.sandbox.accepted())
    assert sent == {"a@mailbox.example": 2, "b@mailbox.example": 2, "d@mailbox.example": 1}
    found = site.json("campaign", "status", "trial")
    assert isinstance(found, dict)
    journey = found["enrolments"]
    assert {key: journey[key] for key in ("enrolled", "active", "completed", "exited", "goal")} == {
        "enrolled": 4,
        "active": 0,
        "completed": 2,
        "exited": 2,
        "goal": 1,
    }
    assert journey["exited_by_reason"] == {"exit": 1, "bounced": 1}
    assert [(step["step"], step["kind"]) for step in journey["steps"]][:3] == [
        ("hello", "email"),
        ("wait-2", "wait"),
        ("if-3", "if"),
    ]
    shown = site.run("campaign", "status", "trial").stdout
    assert "4 enrolled = 0 active + 2 completed + 2 exited; 1 reached the goal" in " ".join(shown.split())


async def test_who_matches_the_exit_after_the_job_was_enqueued_gets_no_mail(site: Site) -> None:
    await site.launch(["a@mailbox.example", "b@mailbox.example"], JOURNEY)
    await pay(site, "b@mailbox.example")
    site.start("recorder")
    site.start("worker")
    assert await site.until_settled() == {TouchState.ACCEPTED: 1, TouchState.CANCELLED: 1}
    site.run("advance")
    found = site.json("campaign", "status", "trial")
    assert isinstance(found, dict)
    assert found["enrolments"]["exited_by_reason"] == {"exit": 1}
    assert len(site.received()) == 1


async def pay(site: Site, address: str) -> None:
    statement = sa.text("UPDATE recipient SET attributes = :fields WHERE address = :address")
    statement = statement.bindparams(sa.bindparam("fields", type_=JSON_OBJECT))
    async with site.context() as context:
        with write(context.engine) as connection:
            connection.execute(statement, {"fields": {"first_name": "Paid"}, "address": address})
