"""How variants do is on the page of their campaign: rates with intervals, the state of the test, and their messages."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col

from postroad.console.interval_chart import WIDTH, NamedRate, interval_chart
from postroad.read_model import variants
from postroad.settings import AccessRole
from postroad.store.campaign import Campaign
from postroad.store.engine import write
from postroad.store.ledger import TouchState, record_reply
from postroad.store.variant import DecisionReason, VariantOutcome, VariantTest, record_outcomes
from tests.console.kit import Console
from tests.console.pages import HOSTILE
from tests.console.test_campaigns import links, listed_rows
from tests.store.rows import NOW, add_campaign, add_touch

ODD = HOSTILE[:40]
STEP = {
    "variants": [{"name": "plain", "share": 60}, {"name": ODD, "share": 40}],
    "winner": {"by": "replied", "after_ms": 172_800_000, "at_most": 20},
}
VARIANT = sa.text("UPDATE touch SET variant = :variant WHERE id = :id")


@pytest.fixture
def step(console: Console) -> int:
    """A step with two variants: 60 accepted messages each, 5 bounced ones of one, and 7 that wait."""
    with write(console.engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring", launched_at=NOW, steps=(STEP,))
        for state, variant, number in (
            (TouchState.ACCEPTED, "plain", 60),
            (TouchState.ACCEPTED, ODD, 60),
            (TouchState.BOUNCED, ODD, 5),
            (TouchState.AWAITING, None, 7),
        ):
            for place in range(number):
                touch = add_touch(connection, campaign, step, state, settled_at=NOW if state.ended else None)
                connection.execute(VARIANT, {"variant": variant, "id": touch})
                if variant == "plain" and place < 20:
                    record_reply(connection, touch, f"reply to {touch}", NOW)
    return step


def decided(console: Console, step: int, winner: str | None, at: datetime | None) -> None:
    reason = None if at is None else DecisionReason.TIME if winner is None else DecisionReason.EVIDENCE
    counted = {name: {"accepted": 60, "successes": 20} for name in ("plain", ODD)}
    with write(console.engine) as connection:
        campaign = connection.execute(sa.text("SELECT campaign_id FROM step WHERE id = :id"), {"id": step}).scalar_one()
        test = {
            "step_id": step,
            "campaign_id": campaign,
            "cursor": 0,
            "begun_at": NOW,
            "decide_at": NOW + timedelta(days=2),
            "planned": 132,
            "tested": 125,
        }
        evidence = None if at is None else {"variants": counted}
        values = {**test, "decided_at": at, "winner": winner, "reason": reason, "evidence": evidence}
        connection.execute(sa.insert(VariantTest).values(**values))


async def test_numbers_of_variants_lead_to_their_messages(
    console: Console, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "WINDOW", 25)  # Most pages end at the window, and some of them are empty.
    http = await console.client(AccessRole.VIEW)
    page = await http.get("/campaigns/spring")
    numbers = links(page, "/variants/messages?")
    assert sorted(numbers.values()) == [5, 20, 60, 60]
    for href, number in numbers.items():
        assert await listed_rows(http, href) == number, href
    [replied] = [href for href in numbers if "outcome=replied" in href]
    assert "Replied: messages with variant plain" in (await http.get(replied)).text
    assert links(page, "state=awaiting"), "those that wait for the decision are a list"
    assert (await http.get("/campaigns/spring/variants/messages?step=none&variant=plain")).status_code == 409
    assert (
        "No message with this variant"
        in (await http.get("/campaigns/spring/variants/messages?step=step-1&variant=other&state=dead")).text
    )


async def test_every_outcome_of_a_variant_is_a_list(console: Console) -> None:
    journey = {"goal": "event('paid')"}
    with write(console.engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring", launched_at=NOW, steps=(STEP,))
        connection.execute(
            sa.update(Campaign).where(col(Campaign.id) == campaign).values(journey=journey, on_reply="continue")
        )
        touches = [add_touch(connection, campaign, step, TouchState.ACCEPTED, settled_at=NOW) for _ in range(70)]
        connection.execute(
            sa.text("UPDATE touch SET variant = CASE WHEN id % 7 = 0 THEN 'plain' ELSE :odd END"), {"odd": ODD}
        )
        for number, outcome in enumerate(VariantOutcome):
            record_outcomes(connection, touches[: 20 + 15 * number], outcome, NOW)
    http = await console.client(AccessRole.VIEW)
    numbers = links(await http.get("/campaigns/spring"), "outcome=")
    assert len(numbers) == 2 * len(VariantOutcome)
    assert sum(numbers.values()) == sum(20 + 15 * number for number in range(len(VariantOutcome)))
    for href, number in numbers.items():
        assert await listed_rows(http, href) == number, href


@pytest.mark.parametrize(
    ("winner", "at", "badge", "words"),
    [
        (None, None, "testing", "tests with 125 of 132 recipients"),
        (None, NOW, "no winner", "no variant was better for sure"),
        (ODD, NOW, "won", "replied after plain 20 of 60"),
    ],
)
async def test_the_state_of_the_test_is_shown(
    console: Console, step: int, winner: str | None, at: datetime | None, badge: str, words: str
) -> None:
    decided(console, step, winner, at)
    http = await console.client(AccessRole.VIEW)
    page = (await http.get("/campaigns/spring")).text
    assert re.search(rf'<span class="badge[^"]*">[^<]*{badge}</span>', page)
    assert words in page
    assert "<script>alert(1)" not in page
    assert "33.33 %" in page, "20 replies to 60 messages"
    assert ("That is a result, too" in page) == (at is not None and winner is None)
    assert page.count("<circle") == 2
    # Without a decision 20 replies against none count, and the decisions of this test were made with 20 against 20.
    assert ("is better than each of the others is " in page) is (at is None)
    assert ("The sequential test has no winner: a variant needs the evidence 40" in page) is (at is not None)


async def test_a_campaign_without_variants_has_no_such_section(console: Console) -> None:
    with write(console.engine) as connection:
        add_campaign(connection, name="spring")
    http = await console.client(AccessRole.VIEW)
    assert "Variants of step" not in (await http.get("/campaigns/spring")).text


@pytest.mark.parametrize("high", [0.0004, 0.03, 0.3, 1.0])
def test_intervals_stay_within_the_chart(high: float) -> None:
    first = NamedRate(name="a" * 40, rate=high / 2, low=0, high=high)
    chart = interval_chart([first, NamedRate(name="b", rate=0, low=0, high=high)])
    for line in chart.lines:
        assert chart.left == line.low <= line.rate <= line.high <= WIDTH
        assert line.y < chart.bottom
        assert len(line.name) <= 24
    assert [mark.at for mark in chart.marks] == sorted(mark.at for mark in chart.marks)
