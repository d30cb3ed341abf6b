"""Rollouts and variants by the API: read, and the next share let go once."""

from __future__ import annotations

from postroad.campaign.plan import launch
from postroad.settings import AccessRole
from tests.api.installation import Installation
from tests.api.server import ApiServer

IN_SHARES = """
name: spring
sender: shop
audience: {name: customers}
steps:
  - {email: news, subject: News, text: news.txt}
rollout: [25%, 100%]
"""
WITH_VARIANTS = """
name: spring
sender: shop
audience: {name: customers}
steps:
  - email: news
    subject: News
    text: news.txt
    variants:
      - {name: question, subject: "Shall we?", share: 60}
      - {name: plain, share: 40}
"""
PEOPLE = 20


def launched(installation: Installation, campaign: str) -> None:
    installation.apply(campaign)
    installation.add_members(*(f"reader{number}@example.org" for number in range(PEOPLE)))
    launch(installation.engine, "spring", installation.context.clock.now(), installation.context.hash_of)


async def test_the_next_share_of_a_rollout_is_let_go_once(api: ApiServer) -> None:
    launched(api.installation, IN_SHARES)
    async with api.client(AccessRole.OPERATE) as http:
        before = (await http.get("/campaigns/spring/rollout")).json()
        assert [(share["number"], share["people"]) for share in before["shares"]] == [(1, 5), (2, 15)]
        assert before["next"] == 2
        assert before["shares"][1]["opened_at"] is None
        widened = await http.post("/campaigns/spring/widen", json={"share": 2})
        assert widened.status_code == 200, widened.text
        assert widened.json() == {"campaign": "spring", "share": 2, "already": False, "submitted": PEOPLE}
        assert await api.installation.jobs() == PEOPLE
        again = (await http.post("/campaigns/spring/widen", json={"share": 2})).json()
        assert (again["already"], again["submitted"]) == (True, 0)
        after = (await http.get("/campaigns/spring/rollout")).json()
        assert (after["next"], after["shares"][1]["opened_by"]) == (None, "key key-operate")
        assert (await http.post("/campaigns/spring/widen", json={"share": 3})).status_code == 409


async def test_a_campaign_without_a_rollout_is_not_widened(api: ApiServer) -> None:
    launched(api.installation, WITH_VARIANTS)
    async with api.client(AccessRole.OPERATE) as http:
        found = (await http.get("/campaigns/spring/rollout")).json()
        assert found == {"campaign": "spring", "shares": [], "next": None}
        assert (await http.post("/campaigns/spring/widen", json={"share": 1})).status_code == 409
        assert (await http.post("/campaigns/none/widen", json={"share": 1})).status_code == 404
        assert (await http.get("/campaigns/none/rollout")).status_code == 404


async def test_variants_sum_to_the_messages_of_their_step(api: ApiServer) -> None:
    launched(api.installation, WITH_VARIANTS)
    async with api.client(AccessRole.VIEW) as http:
        found = (await http.get("/campaigns/spring/variants")).json()
        assert (await http.get("/campaigns/none/variants")).status_code == 404
    [step] = found["steps"]
    assert {variant["name"]: variant["share"] for variant in step["variants"]} == {"question": 60, "plain": 40}
    drawn = sum(variant["touches"] for variant in step["variants"])
    assert drawn + step["without_variant"] == step["touches"] == PEOPLE
    assert step["decision"] is None


async def test_the_test_of_variants_says_what_each_lacks_to_win(api: ApiServer) -> None:
    winner = "    winner: {by: replied, decide: {after: 2d, at_most: 50%}}\n"
    launched(api.installation, WITH_VARIANTS + winner)
    async with api.client(AccessRole.VIEW) as http:
        [step] = (await http.get("/campaigns/spring/variants")).json()["steps"]
    decision = step["decision"]
    assert (decision["at_most"], decision["evidence_needed"], decision["false_winner"]) == (50, 40.0, 0.05)
    assert (decision["decided_at"], decision["winner"]) == (None, None)
    assert [round(variant["evidence"], 3) for variant in step["variants"]] == [1.0, 1.0]
