"""Variants from a file to the provider's mailboxes: a winner that is really decided, and a test without one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.recipient_event import NewEvent, record_events
from tests.end_to_end.site import Site
from tests.kit.waiting import until

pytestmark = pytest.mark.timeout(180)

RECIPIENTS = 80
CAMPAIGN = """
name: trial
sender: ada
audience: {name: readers, file: readers.csv}
goal: "event('paid')"
steps:
  - email: hello
    subject: "Hello {{ first_name }}"
    text: hello.txt
    variants:
      - {name: question, subject: "Shall we, {{ first_name }}?", share: 50}
      - {name: plain, share: 50}
    winner: {by: goal, decide: {after: AFTER, at_most: 50%}}
"""


async def launched(site: Site, after: str) -> None:
    await site.launch(RECIPIENTS, CAMPAIGN.replace("AFTER", after))
    site.start("recorder")
    site.start("worker")

    async def tested() -> bool:
        return (await site.counts()) == {TouchState.AWAITING: RECIPIENTS // 2, TouchState.ACCEPTED: RECIPIENTS // 2}

    await until(tested, within_s=60)


async def addresses_of(site: Site, variant: str) -> list[str]:
    statement = sa.text(
        "SELECT recipient.address FROM touch JOIN recipient ON recipient.id = touch.recipient_id "
        "WHERE touch.variant = :variant ORDER BY touch.id"
    )
    async with site.context() as context:
        with read(context.engine) as connection:
            return list(connection.execute(statement, {"variant": variant}).scalars())


async def finish(site: Site) -> None:
    async def finished() -> bool:
        site.run("advance")
        return (await site.summary()).state == "finished"

    await until(finished, within_s=60)


def subjects(site: Site) -> Counter[str]:
    """Return the subjects that the provider accepted, without names."""
    found: Counter[str] = Counter()
    for path in Path(site.sandbox.maildir_path).rglob("*"):
        if path.is_file():
            line = next(line for line in path.read_text().splitlines() if line.startswith("Subject: "))
            found["question" if "Shall we" in line else "plain"] += 1
    return found


async def test_the_winner_goes_to_everyone_who_waited(site: Site) -> None:
    await launched(site, "1d")
    site.run("advance")
    assert (await site.counts())[TouchState.AWAITING] == RECIPIENTS // 2
    payers = await addresses_of(site, "question")
    tested = Counter({"question": len(payers), "plain": RECIPIENTS // 2 - len(payers)})
    assert subjects(site) == tested
    shown = site.json("explain", await waiting(site), "--campaign", "trial")
    assert isinstance(shown, dict)
    assert [hold["cause"] for hold in shown["messages"][0]["holds"]] == ["decision"]
    async with site.context() as context:
        with write(context.engine) as connection:
            record_events(connection, [NewEvent(address, "paid", context.clock.now()) for address in payers])
    await finish(site)
    assert set(site.received().values()) == {1}
    assert subjects(site) == {"question": RECIPIENTS - tested["plain"], "plain": tested["plain"]}
    report = site.json("campaign", "variants", "trial")
    assert isinstance(report, dict)
    [step] = report["steps"]
    assert (step["decision"]["winner"], step["decision"]["reason"]) == ("question", "evidence")
    assert step["decision"]["evidence"]["question"]["successes"] == len(payers)
    figures = {each["name"]: each for each in step["variants"]}
    assert figures["question"]["accepted"] == RECIPIENTS - tested["plain"]
    assert figures["question"]["goal"] == len(payers)
    assert step["touches"] == RECIPIENTS == sum(each["touches"] for each in figures.values())
    assert "question won at" in site.run("campaign", "variants", "trial").stdout
    delays = site.json("campaign", "delays", "trial")
    assert isinstance(delays, dict)
    assert "decision" in {each["cause"] for each in delays["accepted"]["delays"]}


async def test_without_a_winner_the_others_get_their_shares(site: Site) -> None:
    await launched(site, "1s")
    await finish(site)
    assert set(site.received().values()) == {1}
    assert sum(site.received().values()) == RECIPIENTS
    assert subjects(site)["plain"] == pytest.approx(RECIPIENTS / 2, abs=22)
    report = site.json("campaign", "variants", "trial")
    assert isinstance(report, dict)
    decision = report["steps"][0]["decision"]
    assert (decision["winner"], decision["reason"]) == (None, "time")
    assert decision["words"].startswith("no winner")


async def waiting(site: Site) -> str:
    statement = sa.text(
        "SELECT recipient.address FROM touch JOIN recipient ON recipient.id = touch.recipient_id "
        "WHERE touch.state = 'awaiting' LIMIT 1"
    )
    async with site.context() as context:
        with read(context.engine) as connection:
            return str(connection.execute(statement).scalar_one())
