"""Approvals by the API. A launch that a real Prefect server runs is in tests/prefect/test_console_launch.py."""

from __future__ import annotations

from uuid import uuid4

import pytest
import sqlalchemy as sa

from postroad.app.approval import LaunchRequest, request_approval
from postroad.settings import AccessRole, ApprovalSettings
from postroad.store.engine import read
from tests.api.installation import Installation
from tests.api.server import ApiServer

CAMPAIGN = """
name: {name}
sender: shop
audience: {{name: customers}}
approval: always
steps:
  - {{email: news, subject: News, text: news.txt}}
"""


async def ask(installation: Installation, name: str = "spring", *, by: str = "carl") -> dict[str, int]:
    """Request the approval of a launch, as a run does that then waits. Returns the body that approves it."""
    installation.apply(CAMPAIGN.format(name=name))
    installation.add_members("ada@example.org", "bob@example.org")
    asked = await request_approval(installation.context, LaunchRequest(campaign=name, asked_by=by))
    assert asked.new
    assert asked.approval is not None
    assert asked.approval.id is not None
    return {"request": asked.approval.id}


def audited(installation: Installation) -> list[tuple[str, str, str, int | None, str]]:
    statement = "SELECT actor, action, target, count, note FROM audit_record ORDER BY id"
    with read(installation.engine) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


async def test_a_launch_is_approved_once_and_the_decision_is_listed(api: ApiServer) -> None:
    wanted = await ask(api.installation)
    async with api.client(AccessRole.SEND) as http:
        [waiting] = (await http.get("/approvals")).json()["items"]
        assert (waiting["campaign"], waiting["state"], waiting["people"]) == ("spring", "open", 2)
        assert waiting["id"] == wanted["request"]
        assert (waiting["requested_by"], waiting["expired"]) == ("carl", False)
        first = await http.post("/campaigns/spring/approve", json=wanted)
        assert first.status_code == 200, first.text
        assert (first.json()["state"], first.json()["already"], first.json()["people"]) == ("approved", False, 2)
        assert first.json()["flow_run"] is None, "no run waits"
        again = (await http.post("/campaigns/spring/approve", json=wanted)).json()
        assert again["already"] is True
        [decided] = (await http.get("/approvals", params={"campaign": "spring"})).json()["items"]
    assert (decided["state"], decided["decided_by"]) == ("approved", "key key-send")
    assert decided["decided_from"].startswith("the API, from ")
    assert audited(api.installation)[0] == ("key key-send", "campaign.approve", "spring", 2, "")


async def test_a_refusal_has_a_reason_and_takes_an_unused_approval_back(api: ApiServer) -> None:
    wanted = await ask(api.installation)
    async with api.client(AccessRole.SEND) as http:
        assert (await http.post("/campaigns/spring/refuse", json={"reason": ""})).status_code == 422
        assert (await http.post("/campaigns/spring/approve", json=wanted)).status_code == 200
        refused = await http.post("/campaigns/spring/refuse", json={"reason": "Not before Monday"})
        assert refused.status_code == 200, refused.text
        assert (refused.json()["state"], refused.json()["already"]) == ("refused", False)
        [decided] = (await http.get("/approvals")).json()["items"]
        assert (decided["state"], decided["reason"]) == ("refused", "Not before Monday")
        assert (await http.post("/campaigns/spring/approve", json=wanted)).status_code == 409
        assert (await http.get("/campaigns/spring")).json()["state"] == "draft"
    refusals = [record for record in audited(api.installation) if record[1] == "campaign.refuse"]
    assert refusals == [("key key-send", "campaign.refuse", "spring", None, "Not before Monday")]


async def test_a_second_person_is_a_second_key(api: ApiServer) -> None:
    context = api.installation.context
    context.settings = context.settings.model_copy(update={"approval": ApprovalSettings(second_person=True)})
    wanted = await ask(api.installation, by="key key-send")
    async with api.client(AccessRole.SEND) as asking, api.client(AccessRole.OPERATE) as other:
        own = await asking.post("/campaigns/spring/approve", json=wanted)
        assert own.status_code == 409
        assert "another person has to approve it" in own.json()["detail"]
        unseen = await other.post("/campaigns/spring/approve", json={"request": wanted["request"] + 1})
        assert unseen.status_code == 409
        assert "after the request that you were shown" in unseen.json()["detail"]
        assert (await other.post("/campaigns/spring/approve", json=wanted)).status_code == 200


async def test_requests_are_listed_by_pages_without_repetition(api: ApiServer) -> None:
    for number in range(5):
        await ask(api.installation, f"spring-{number}")
    found, cursor = [], None
    async with api.client(AccessRole.SEND) as http:
        while True:
            page = (await http.get("/approvals", params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
            found += [row["campaign"] for row in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert found == [f"spring-{number}" for number in reversed(range(5))]
        assert (await http.get("/approvals", params={"campaign": "none"})).status_code == 404


async def test_what_waits_for_nothing_is_not_approved(api: ApiServer) -> None:
    api.installation.apply(CAMPAIGN.format(name="spring"))
    async with api.client(AccessRole.SEND) as http:
        assert (await http.post("/campaigns/spring/approve", json={"request": 1})).status_code == 409
        assert (await http.post("/campaigns/spring/approve")).status_code in (400, 422)
        assert (await http.post("/campaigns/spring/refuse", json={"reason": "No"})).status_code == 409
        assert (await http.post("/campaigns/none/approve", json={"request": 1})).status_code == 404
        assert (await http.get("/approvals")).json() == {"items": [], "next": None}


async def test_without_prefect_a_launch_cannot_be_followed(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    async with api.client(AccessRole.SEND) as http:
        answer = await http.get(f"/launches/{uuid4()}")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:postroad:problem:unavailable")
        assert (await http.get("/launches/none")).status_code == 422
