"""The rollout on the page of a campaign, and the act that lets its next share go."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest
import sqlalchemy as sa

from postroad.settings import AccessRole
from postroad.store.campaign import find_campaign
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.rollout import RolloutShare, shares_of
from tests.console.kit import Console
from tests.console.pages import fill_rollout

WIDEN = "/campaigns/rolled/widen?share=2"


@pytest.fixture
def rolled(engine: sa.Engine, console: Console) -> None:
    """A campaign with a share of one recipient that is out, and one of three that is withheld."""
    with write(engine) as connection:
        fill_rollout(connection, console.parts.now())


def shares(engine: sa.Engine) -> list[RolloutShare]:
    with read(engine) as connection:
        return shares_of(connection, find_campaign(connection, "rolled").id or 0)


def states(engine: sa.Engine) -> Counter[str]:
    with read(engine) as connection:
        return Counter(connection.execute(sa.text("SELECT state FROM touch")).scalars())


@pytest.mark.usefixtures("rolled")
async def test_the_page_shows_each_share_and_what_holds_the_next(console: Console) -> None:
    page = (await (await console.client(AccessRole.VIEW)).get("/campaigns/rolled")).text
    rows = re.findall(r'<th scope="row" class="num">(\d)</th><td>([^<]+)</td><td class="num">([\d,]+)</td>', page)
    assert rows == [("1", "25 %", "1"), ("2", "100 %", "3")]
    assert "the launch" in page
    assert "is not let go since" in page
    assert "too few: &lt;script&gt;" in page
    assert WIDEN not in page, "a user who may only look gets no button"
    assert (
        "/campaigns/rolled/widen?share=2"
        in (await (await console.client(AccessRole.OPERATE)).get("/campaigns/rolled")).text
    )


@pytest.mark.usefixtures("rolled")
async def test_letting_a_share_go_says_first_how_many_it_reaches(console: Console, engine: sa.Engine) -> None:
    http = await console.client(AccessRole.OPERATE, user="carl@example.com")
    asked = await http.get(WIDEN)
    assert asked.status_code == 200, asked.text
    assert re.search(r">3</span></dd>", asked.text)
    assert "100 % of the audience" in asked.text
    assert states(engine) == {TouchState.ACCEPTED: 1, TouchState.WITHHELD: 3}, "a GET changes nothing"

    done = await http.post(WIDEN)
    assert (done.status_code, done.headers["location"]) == (303, "/campaigns/rolled")
    second = shares(engine)[1]
    assert second.opened_at is not None
    assert second.opened_by == "carl@example.com in the console"
    assert TouchState.WITHHELD not in states(engine), "its messages are planned at once"
    record = console.audit()[0]
    assert (record.action, record.target, record.count) == ("campaign.widen", "rolled, share 2", 3)
    assert record.actor == "carl@example.com"


@pytest.mark.usefixtures("rolled")
async def test_a_share_that_is_not_the_next_one_is_refused(console: Console, engine: sa.Engine) -> None:
    http = await console.client(AccessRole.OPERATE)
    for share in (1, 3):
        assert (await http.get(f"/campaigns/rolled/widen?share={share}")).status_code == 409
        assert (await http.post(f"/campaigns/rolled/widen?share={share}")).status_code == 409
    answers = await asyncio.gather(*(http.post(WIDEN) for _ in range(3)))
    assert {answer.status_code for answer in answers} <= {303, 409}
    assert (await http.post(WIDEN)).status_code == 409, "the page showed a share that is out now"
    assert shares(engine)[1].opened_at is not None
    assert (await http.get("/campaigns/rolled/widen?share=x")).status_code == 422


@pytest.mark.usefixtures("rolled")
async def test_who_may_send_may_not_overrule_what_holds_a_share(console: Console, engine: sa.Engine) -> None:
    http = await console.client(AccessRole.SEND)
    assert (await http.get(WIDEN)).status_code == 403
    assert (await http.post(WIDEN)).status_code == 403
    assert shares(engine)[1].opened_at is None
