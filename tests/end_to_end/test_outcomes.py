"""Each way that a delivery can end: from a real reply to the ledger, the suppressions and the gates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, cast

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import advance
from postroad.campaign.status import finish_if_done
from postroad.delivery.job import SEND_QUEUE
from postroad.queue import FOREVER_MS
from postroad.queue.redis.client import connect
from postroad.sandbox import ConnectionEnding, Fault, RulePhase, SandboxRule
from postroad.store.campaign import CampaignState
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from tests.end_to_end.site import Site

pytestmark = pytest.mark.timeout(120)


async def suppressed(site: Site) -> dict[str, str]:
    async with site.context() as context:
        with read(context.engine) as connection:
            return dict(connection.execute(sa.text("SELECT address, reason FROM suppression")).tuples().all())


async def deliver(site: Site, *addresses: str) -> dict[str, str]:
    """Send the campaign to these addresses and wait until it is settled. Return the state of each."""
    await site.launch(addresses)
    site.start("recorder")
    site.start("worker")

    async def nothing_moves() -> bool:
        current = await site.summary()
        return current.settled and current.counts[TouchState.PLANNED] == 0

    await site.until(nothing_moves)
    return site.states()


async def test_replies_end_in_the_state_that_they_mean(site: Site) -> None:
    states = await deliver(
        site,
        "ok@mailbox.example",
        "gone+550-5.1.1@mailbox.example",
        "full+552-5.2.2@mailbox.example",
        "later+451-4.7.1@mailbox.example",
        "lost+drop-after-dot@mailbox.example",
        "big+552-5.3.4@mailbox.example",
    )
    assert states == {
        "ok@mailbox.example": "accepted",
        "gone+550-5.1.1@mailbox.example": "bounced",
        "full+552-5.2.2@mailbox.example": "bounced",
        "later+451-4.7.1@mailbox.example": "deferred",
        "lost+drop-after-dot@mailbox.example": "unknown",
        "big+552-5.3.4@mailbox.example": "bounced",
    }
    # Only who does not exist is suppressed.
    assert await suppressed(site) == {"gone+550-5.1.1@mailbox.example": "hard_bounce"}


async def test_one_host_of_an_unknown_domain_does_not_stop_a_sender(site: Site) -> None:
    states = await deliver(site, "strict+550-5.7.515@mailbox.example", "ada@mailbox.example")
    assert states == {"strict+550-5.7.515@mailbox.example": "dead", "ada@mailbox.example": "accepted"}
    async with site.context() as context:
        gates = {state.gate.name: state.gate for state in await (await context.queue(SEND_QUEUE)).gates()}
        assert not gates["sender:ada@sender.example"].paused_until_ms


async def test_broken_authentication_pauses_the_sender_and_suppresses_no_one(site: Site) -> None:
    states = await deliver(site, "strict+550-5.7.515@outlook.com")
    assert states == {"strict+550-5.7.515@outlook.com": "dead"}
    assert await suppressed(site) == {}
    async with site.context() as context:
        queue = await context.queue(SEND_QUEUE)
        gates = {state.gate.name: state.gate for state in await queue.gates()}
        assert gates["sender:ada@sender.example"].paused_until_ms == FOREVER_MS
        assert [letter.cause for letter in (await queue.dead_letters(count=10))[0]] == ["sender authentication"]
    await site.until(lambda: bool(site.json("shaping", "log")))
    [held] = cast("list[dict[str, str]]", site.json("shaping", "log"))
    assert (held["rule"], held["gate"]) == ("sender authentication", "sender:ada@sender.example")
    assert "5.7.515" in held["reply"]
    # Resumed and replayed, it is tried again; this known provider replies the same.
    site.run("queue", "gate", "resume", "sender:ada@sender.example")
    assert site.json("queue", "replay", "--all") == {"replayed": 1}

    async def dead_again() -> bool:
        # The ledger hears of it a moment after the queue.
        return await dead_letters(site) == 1 and site.states() == {"strict+550-5.7.515@outlook.com": "dead"}

    await site.until(dead_again)
    assert site.sandbox.counters.refused[RulePhase.RCPT] == 2


async def dead_letters(site: Site) -> int:
    async with site.context() as context:
        return (await (await context.queue(SEND_QUEUE)).stats()).dead


async def test_what_bounced_is_not_replayed(site: Site) -> None:
    await deliver(site, "gone+550-5.1.1@mailbox.example")
    assert await dead_letters(site) == 1
    assert site.json("queue", "replay", "--all") == {"replayed": 0}
    assert site.states() == {"gone+550-5.1.1@mailbox.example": "bounced"}


@pytest.fixture(params=["sqlite", "postgresql"])
def either_site(request: pytest.FixtureRequest) -> Site:
    """A site on each of the databases."""
    name = "site" if request.param == "sqlite" else "postgresql_site"
    found: Site = request.getfixturevalue(name)
    return found


async def test_dead_touches_are_replayed_after_the_queue_was_lost(either_site: Site) -> None:
    site = either_site
    if site.variables:
        site.run("db", "upgrade")
    refused = Fault(reply="550 5.7.1 Message refused by policy")
    site.sandbox.use([SandboxRule(phase=RulePhase.DOT, fault=refused, recipient="refused*")])
    addresses = [f"refused{n}@mailbox.example" for n in range(3)]
    states = await deliver(site, "gone+550-5.1.1@mailbox.example", "ok@mailbox.example", *addresses)
    assert states == {
        "gone+550-5.1.1@mailbox.example": "bounced",
        "ok@mailbox.example": "accepted",
        **dict.fromkeys(addresses, "dead"),
    }
    groups = {group["cause"]: group["jobs"] for group in cast("list[Any]", site.json("queue", "dead", "--by", "cause"))}
    [cause] = [cause for cause, jobs in groups.items() if jobs == 3]
    async with site.context() as context:
        assert await asyncio.to_thread(finish_if_done, context.engine, "trial", context.clock.now())
    await site.stop(site.processes.pop())  # Started last: the worker.
    client = connect(site.redis.url)
    await cast("Awaitable[object]", client.flushall())
    await client.aclose()
    site.run("queue", "rebuild")

    # The ledger has them, each once; what bounced is not among them.
    letters = cast("list[dict[str, str]]", site.json("queue", "dead"))
    assert len(letters) == 3
    assert {letter["cause"] for letter in letters} == {cause}
    assert all("5.7.1" in letter["error"] for letter in letters)
    site.sandbox.use([])
    assert site.run("queue", "replay", "--cause", "another cause", check=False).returncode == 7
    assert site.json("queue", "replay", addresses[0]) == {"replayed": 1}
    assert site.json("queue", "replay", "--cause", cause) == {"replayed": 2}
    assert site.json("queue", "replay", "--all") == {"replayed": 0}
    site.start("worker")
    await site.until_settled()
    assert site.states() == {
        "gone+550-5.1.1@mailbox.example": "bounced",
        **dict.fromkeys(["ok@mailbox.example", *addresses], "accepted"),
    }
    assert set(site.received().values()) == {1}
    assert len(site.received()) == 4
    assert site.json("queue", "dead") == []


async def test_dead_letters_of_queue_and_ledger_are_counted_once(site: Site) -> None:
    site.sandbox.use([SandboxRule(phase=RulePhase.DOT, fault=Fault(reply="550 5.7.1 Message refused by policy"))])
    await deliver(site, "a@mailbox.example", "b@mailbox.example")
    await site.until(lambda: set(site.states().values()) == {"dead"})
    async with site.context() as context:
        [first, _] = (await (await context.queue(SEND_QUEUE)).dead_letters(count=10))[0]
        # One is known to the ledger alone.
        await (await context.queue(SEND_QUEUE)).drop([first.id])
    assert len(cast("list[object]", site.json("queue", "dead"))) == 2
    site.sandbox.use([])
    assert site.json("queue", "replay", "--all") == {"replayed": 2}
    await site.until_settled()
    assert list(site.received().values()) == [1, 1]


async def test_suppression_written_now_holds_for_what_is_queued_already(site: Site) -> None:
    addresses = [f"reader{n}@mailbox.example" for n in range(20)]
    await site.launch(addresses)
    assert site.json("suppression", "add", "reader3@mailbox.example", "reader4@mailbox.example") == {
        "suppressed": 2,
        "known": 0,
    }
    site.start("recorder")
    site.start("worker")
    counts = await site.until_settled()
    assert counts == {TouchState.ACCEPTED: 18, TouchState.SUPPRESSED: 2}
    assert len(site.received()) == 18
    assert {"reader3@mailbox.example", "reader4@mailbox.example"}.isdisjoint(
        message.recipient for message in site.sandbox.accepted()
    )


async def test_paused_campaign_resumes_where_it_stopped(site: Site) -> None:
    await site.launch(50)
    site.run("campaign", "pause", "trial")
    site.start("recorder")
    site.start("worker")
    await site.until(lambda: "serves" in site.log("worker"))
    await asyncio.sleep(0.5)  # That nothing happens can only be waited for.
    assert not site.received()
    site.run("campaign", "resume", "trial")
    assert await site.until_settled() == {TouchState.ACCEPTED: 50}


async def test_cancelled_campaign_ends_all_that_waits(site: Site) -> None:
    await site.launch(50)
    site.run("campaign", "cancel", "trial", "--yes")
    site.start("recorder")
    site.start("worker")
    await site.until(lambda: "serves" in site.log("worker"))
    assert await site.until_settled() == {TouchState.CANCELLED: 50}
    assert not site.received()
    again = site.run("campaign", "resume", "trial", check=False)
    assert again.returncode == 7
    assert "cancelled" in again.stderr


async def test_connection_lost_before_the_dot_is_tried_again_and_delivered(site: Site) -> None:
    site.sandbox.use([SandboxRule(phase=RulePhase.DATA, fault=Fault(ending=ConnectionEnding.DROP), first_attempts=1)])
    await site.launch(["once@mailbox.example"])
    site.start("recorder")
    site.start("worker")
    counts = await site.until_settled()  # after the ADR's five seconds
    assert counts == {TouchState.ACCEPTED: 1}
    assert set(site.received().values()) == {1}


async def test_every_message_carries_its_way_out_and_its_own_message_id(site: Site) -> None:
    from email import message_from_bytes
    from email.policy import default

    await deliver(site, "a@mailbox.example", "b@mailbox.example")
    messages = [
        message_from_bytes(path.read_bytes(), policy=default)
        for path in (site.folder / "sandbox" / "Maildir" / "new").iterdir()
    ]
    assert len({message["Message-ID"] for message in messages}) == 2
    for message in messages:
        assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert message["List-Unsubscribe"].startswith("<https://mail.sender.example/u/")
        assert message["Return-Path"].startswith("<bounce+")
        assert "1 Post Road, Milestone" in message.get_content()


SEQUENCE = """
name: trial
sender: ada
audience: {name: readers, file: readers.csv}
steps:
  - {email: hello, subject: "Hello {{ first_name }}", text: hello.txt}
  - wait: 1s
  - {email: again, subject: "Hello again, {{ first_name }}", text: hello.txt}
"""


async def test_next_email_follows_an_accepted_one_until_the_campaign_is_finished(site: Site) -> None:
    await site.launch(["a@mailbox.example", "b@mailbox.example", "gone+550-5.1.1@mailbox.example"], SEQUENCE)
    site.start("recorder")
    site.start("worker")
    assert await site.until_settled() == {TouchState.ACCEPTED: 2, TouchState.BOUNCED: 1}
    async with site.context() as context:
        assert not await asyncio.to_thread(finish_if_done, context.engine, "trial", context.clock.now())
        assert await asyncio.to_thread(advance, context.engine, "trial", context.clock.now()) == 2
        assert await asyncio.to_thread(advance, context.engine, "trial", context.clock.now()) == 0
        assert await site.submit(context) == 2
    assert await site.until_settled() == {TouchState.ACCEPTED: 4, TouchState.BOUNCED: 1}
    assert set(site.received().values()) == {1}
    assert len(site.received()) == 4
    async with site.context() as context:
        assert await asyncio.to_thread(finish_if_done, context.engine, "trial", context.clock.now())
    assert (await site.summary()).state is CampaignState.FINISHED
