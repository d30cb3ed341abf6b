"""A program pauses, resumes and closes campaigns with the scope that a person needs for it in the console."""

from __future__ import annotations

import sqlalchemy as sa

from postroad.settings import AccessRole
from postroad.store.engine import read
from tests.api.installation import NEWS, Installation
from tests.api.server import ApiServer


def pauses(installation: Installation) -> list[tuple[str, str, str | None]]:
    statement = 'SELECT gate, "by", resumed_by FROM operator_pause ORDER BY id'
    with read(installation.engine) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


async def test_the_scope_send_pauses_resumes_and_closes_and_the_pause_has_both_names(api: ApiServer) -> None:
    api.installation.launch(NEWS)
    async with api.client(AccessRole.SEND) as http:
        for act, state in (("pause", "paused"), ("resume", "running"), ("close", "running")):
            answer = await http.post(f"/campaigns/news/{act}")
            assert (answer.status_code, answer.json()) == (200, {"campaign": "news", "state": state})
        assert (await http.post("/campaigns/news/cancel")).status_code == 403
    assert pauses(api.installation) == [("campaign:news", "API key key-send", "API key key-send")]


SEQUENCE = """
name: spring
sender: shop
audience: {name: customers}
steps:
  - {email: news, subject: News, text: news.txt}
  - wait: 1d
  - {email: offer, subject: Offer, text: news.txt}
"""


def recalls(installation: Installation) -> list[tuple[str, str, int | None, str]]:
    statement = "SELECT actor, target, count, note FROM audit_record WHERE action = 'campaign.recall' ORDER BY id"
    with read(installation.engine) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


async def test_a_recall_stops_what_waits_and_records_the_reason(api: ApiServer) -> None:
    api.installation.add_members("ada@example.org", "bob@example.org")
    api.installation.apply(SEQUENCE)
    async with api.client(AccessRole.SEND) as http:
        assert (await http.post("/campaigns/spring/recall", json={})).status_code == 403
    async with api.client(AccessRole.OPERATE) as http:
        draft = await http.post("/campaigns/spring/recall", json={})
        assert (draft.status_code, draft.json()["type"]) == (409, "urn:postroad:problem:conflict")
        api.installation.launch(SEQUENCE)
        assert (await http.post("/campaigns/spring/recall", json={"step": "other"})).status_code == 404
        assert (await http.post("/campaigns/spring/recall", json={"reason": "x" * 301})).status_code == 422
        assert recalls(api.installation) == [], "nothing was done"
        step = await http.post("/campaigns/spring/recall", json={"step": "news", "reason": "wrong price"})
        assert step.status_code == 200, step.text
        assert (step.json()["state"], step.json()["counts"]["cancelled"]) == ("running", 2)
        whole = (await http.post("/campaigns/spring/recall", json={})).json()
        assert (whole["state"], whole["step"]) == ("cancelled", None)
        again = await http.post("/campaigns/spring/recall", json={})
        assert (again.status_code, again.json()["counts"]) == (200, whole["counts"])
    assert recalls(api.installation)[:2] == [
        ("key key-operate", "spring, step news", 2, "wrong price"),
        ("key key-operate", "spring", 2, ""),
    ]
