"""A program counts, lists, resolves and repeats messages that a person decides about, by pages that cost the same."""

from __future__ import annotations

from typing import Any

import httpx
import sqlalchemy as sa

from postroad.delivery.job import SEND_QUEUE
from postroad.read_model.undecided import undecided_counts, undecided_of_state
from postroad.settings import AccessRole
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from tests.api.installation import Installation
from tests.api.server import ApiServer
from tests.read_model.world import all_rows
from tests.store.effort import effort_of
from tests.store.large import add_large_campaign
from tests.store.rows import add_campaign, add_touch

S = TouchState
CAUSES = ("", "connection failed", "greylisted", "the mailbox is full")
_CAUSE_BY_ID = sa.text("UPDATE touch SET cause = CASE id % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE 'c' END")


def add(installation: Installation, state: TouchState, cause: str, number: int = 1, name: str = "spring") -> list[int]:
    """Add messages that ended in this state, to a running campaign of this name."""
    with write(installation.engine) as connection:
        known = connection.execute(sa.text("SELECT id FROM campaign WHERE name = :name"), {"name": name}).scalar()
        if known is None:
            campaign, [step] = add_campaign(connection, name=name)
        else:
            campaign = known
            step = connection.execute(
                sa.text("SELECT id FROM step WHERE campaign_id = :id"), {"id": known}
            ).scalar_one()
        ids = [add_touch(connection, campaign, step, state) for _ in range(number)]
        for id_ in ids:
            connection.execute(sa.text("UPDATE touch SET cause = :cause WHERE id = :id"), {"cause": cause, "id": id_})
    return ids


async def rows(http: httpx.AsyncClient, path: str, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of all pages."""
    found: list[dict[str, Any]] = []
    while True:
        page = (await http.get(path, params=parameters)).raise_for_status().json()
        found += page["items"]
        if page["next"] is None:
            return found
        parameters["cursor"] = page["next"]


async def test_each_number_has_rows_that_sum_to_it(api: ApiServer) -> None:
    expected: dict[tuple[str, str], set[int]] = {}
    for number, cause in enumerate(CAUSES, start=2):
        for state in (S.DEAD, S.UNKNOWN):
            ids = [id_ for name in ("a", "b") for id_ in add(api.installation, state, cause, number, name)]
            expected[state, cause] = set(ids)
    add(api.installation, S.DEAD, "of a cancelled campaign", 3, "over")
    with write(api.installation.engine) as connection:
        over = sa.text("UPDATE campaign SET state = :state WHERE name = 'over'")
        connection.execute(over, {"state": CampaignState.CANCELLED.value})
    async with api.client(AccessRole.VIEW) as http:
        counts = (await http.get("/undecided")).json()["items"]
        assert {(row["state"], row["cause"]): row["messages"] for row in counts} == {
            key: len(ids) for key, ids in expected.items()
        }
        for state, path in ((S.DEAD, "/dead-letters"), (S.UNKNOWN, "/unknown")):
            everything = await rows(http, path, limit=3)
            assert len(everything) == len({row["id"] for row in everything})
            for cause in CAUSES:
                assert {row["id"] for row in everything if row["cause"] == cause} == expected[state, cause]
                of_cause = await rows(http, path, limit=2, cause=cause)
                assert {row["id"] for row in of_cause} == expected[state, cause]
        assert await rows(http, "/unknown", cause="another") == []


async def test_rows_that_appear_meanwhile_repeat_and_skip_none(api: ApiServer) -> None:
    first = add(api.installation, S.DEAD, "greylisted", 4)
    async with api.client(AccessRole.VIEW) as http:
        page = (await http.get("/dead-letters", params={"limit": 2})).json()
        add(api.installation, S.DEAD, "connection failed", 3)
        later = add(api.installation, S.DEAD, "timeout", 2)
        rest = await rows(http, "/dead-letters", limit=2, cursor=page["next"])
    assert [row["id"] for row in page["items"] + rest] == [*first, *later]


async def test_a_page_costs_the_same_among_more_messages(installation: Installation) -> None:
    efforts = []
    for number in (200, 2_000):
        with write(installation.engine) as connection:
            add_large_campaign(connection, number, S.DEAD)
            connection.execute(_CAUSE_BY_ID)
        with installation.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        with read(installation.engine) as connection, effort_of(connection) as effort:
            page = undecided_of_state(connection, state=S.DEAD, limit=20)
            undecided_of_state(connection, state=S.DEAD, limit=20, after=page.next)
        efforts.append(effort.count)
    assert efforts[1] <= max(1.5 * efforts[0], efforts[0] + 300)
    with read(installation.engine) as connection:
        found = all_rows(lambda after: undecided_of_state(connection, state=S.DEAD, limit=100, after=after))
        assert len(found) == sum(count.touches for count in undecided_counts(connection)) == 2_200


async def test_messages_are_resolved_and_sent_again(api: ApiServer) -> None:
    [unknown] = add(api.installation, S.UNKNOWN, "the connection broke")
    dead = add(api.installation, S.DEAD, "connection failed", 3)
    async with api.client(AccessRole.OPERATE) as http:
        resolved = await http.post(f"/unknown/{unknown}/resolve", json={"outcome": "accepted"})
        assert resolved.json() == {"id": unknown, "outcome": "accepted"}
        assert (await http.post(f"/unknown/{unknown}/resolve", json={"outcome": "dead"})).status_code == 409
        assert (await http.post("/unknown/4711/resolve", json={"outcome": "dead"})).status_code == 409
        again = await http.post("/dead-letters/replay", json={"ids": [*dead[:2], dead[0], 4711]})
        assert again.json() == {"replayed": 2}
        assert [row["id"] for row in await rows(http, "/dead-letters")] == dead[2:]
        assert await rows(http, "/unknown") == []
    assert await api.installation.jobs() == 2
    states = dict(api.installation.touches())
    assert (states[unknown], states[dead[0]], states[dead[2]]) == ("accepted", "queued", "dead")
    queue = await api.installation.context.queue(SEND_QUEUE)
    assert await queue.audit() == []


async def test_a_program_decides_as_a_person_does(api: ApiServer) -> None:
    unknown = add(api.installation, S.UNKNOWN, "the connection broke", 3)
    dead = add(api.installation, S.DEAD, "connection failed", 2)

    async def decide(http: httpx.AsyncClient, state: str, decision: str, *ids: int) -> httpx.Response:
        return await http.post("/undecided/decide", json={"ids": ids, "state": state, "decision": decision})

    async with api.client(AccessRole.OPERATE) as http:
        assert (await decide(http, "unknown", "delivered", unknown[0])).json() == {"decided": 1}
        assert (await decide(http, "unknown", "send-again", *unknown[:2], 4711)).json() == {"decided": 1}
        assert (await decide(http, "unknown", "drop", unknown[2], dead[0])).json() == {"decided": 1}
        assert (await decide(http, "dead", "drop", dead[0])).json() == {"decided": 1}
        assert (await decide(http, "dead", "send-again", *dead)).json() == {"decided": 1}
        for state, decision in (("dead", "delivered"), ("accepted", "drop")):
            assert (await decide(http, state, decision, dead[0])).status_code == 422
        assert (await http.get("/undecided")).json() == {"items": []}
    states = dict(api.installation.touches())
    assert [states[id_] for id_ in unknown] == ["accepted", "queued", "cancelled"]
    assert [states[id_] for id_ in dead] == ["cancelled", "queued"]
    assert await api.installation.jobs() == 2
